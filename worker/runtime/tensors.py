"""Tensors between the Go side and a worker: of requests and answers, and around a computation elsewhere.

The result of preprocess and the input of postprocess cross as JSON, as bytes, or, made of numpy arrays, as tensors.
Tensors are their descriptions and then their raw buffers. worker/tensors.go mirrors this file; a change of one is a
change of both.

    layout  u8   one array, a dict of arrays, or a list of arrays
    count   u16
    lengths of: what they are together u8, wanted outputs u16; the texts, the wanted ones with a length u16 each
    each: lengths of name u16, dtype u8 and content type u8, dimensions u8, the texts, dimensions u64, bytes u64
    the buffers, one after another; or for each, u64, its place in the shared memory

A dtype is numpy's name, such as "<f4". Two are not numpy's: "|O" for elements of any length (each after its
length, u32) and "bf16".
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from itertools import chain
from math import prod
from typing import Any, NamedTuple, Optional, Union

from answer import RequestError
from frames import Lent

TENSORS = "application/x-tensors"

ONE, DICT, LIST = 0, 1, 2
RAW = "biufcSU"  # kinds of numpy arrays whose buffer is the whole content
ELEMENTS, BF16 = "|O", "bf16"

_preadv = getattr(os, "preadv", None)  # not on every system
_HEAD = struct.Struct("<BHBH")
_TENSOR = struct.Struct("<HBBB")
_SIZE = struct.Struct("<Q")
_SHORT = struct.Struct("<H")
_LENGTH = struct.Struct("<I")

# Formats of struct by numpy's names, for an interpreter without numpy.
FORMATS = {
    "|b1": "?",
    "|u1": "B",
    "|i1": "b",
    "<u2": "H",
    "<i2": "h",
    "<f2": "e",
    "<u4": "I",
    "<i4": "i",
    "<f4": "f",
    "<u8": "Q",
    "<i8": "q",
    "<f8": "d",
}


class InputError(RequestError):
    """Tensors that the endpoint cannot take; the text is fit for a client."""

    def __init__(self, text: str) -> None:
        Exception.__init__(self, text)
        self.detail = text  # type: ignore[assignment]


class Tensor(NamedTuple):
    """A received tensor. The array is a nested list if there is no numpy."""

    name: str
    array: Any
    content_type: str
    dtype: str
    shape: list[int]


class Tensors(NamedTuple):
    """The tensors of a message."""

    layout: int
    whole: str  # what they are together
    wanted: tuple[str, ...]  # names of outputs
    list: list[Tensor]


class Out(NamedTuple):
    """A tensor to send."""

    name: str
    dtype: str
    content_type: str
    shape: Iterable[int]
    data: Union[bytes, bytearray, memoryview]


def unpack(body: Any) -> Tensors:
    """Return the tensors of a body. User code gets writable, aligned arrays: the buffers are copied once, here."""
    file: Optional[int] = None
    if type(body) is Lent:
        body, file = body
    layout, count, n_whole, n_wanted = _HEAD.unpack_from(body)
    at = _HEAD.size + n_whole
    whole = str(body[_HEAD.size : at], "utf-8", "replace")
    wanted = []
    for _ in range(n_wanted):
        (n,) = _SHORT.unpack_from(body, at)
        at += 2 + n
        wanted.append(str(body[at - n : at], "utf-8", "replace"))
    heads = []
    for _ in range(count):
        n, d, c, dims = _TENSOR.unpack_from(body, at)
        at += _TENSOR.size
        name, dtype = str(body[at : at + n], "utf-8", "replace"), str(body[at + n : at + n + d], "ascii")
        kind = str(body[at + n + d : at + n + d + c], "utf-8", "replace")
        at += n + d + c
        *shape, size = struct.unpack_from(f"<{dims + 1}Q", body, at)
        at += (dims + 1) * _SIZE.size
        heads.append((name, dtype, kind, shape, size))
    numpy = _numpy()
    found = []
    for name, dtype, kind, shape, size in heads:
        if file is None:
            array = _array(numpy, dtype, shape, size, body, at)
            at += size
        else:
            (place,) = _SIZE.unpack_from(body, at)
            at += _SIZE.size
            array = _read(numpy, dtype, shape, size, file, place)
        found.append(Tensor(name, array, kind, dtype, shape))
    return Tensors(layout, whole, tuple(wanted), found)


def pack(layout: int, tensors: list[Out], whole: str = "") -> bytes:
    """Return the body of tensors."""
    text = whole.encode()
    parts: list[Any] = [_HEAD.pack(layout, len(tensors), len(text), 0), text]
    for t in tensors:
        name, dtype, kind, shape = t.name.encode("utf-8", "replace"), t.dtype.encode(), t.content_type.encode(), t.shape
        dimensions = tuple(shape)
        parts += (_TENSOR.pack(len(name), len(dtype), len(kind), len(dimensions)), name, dtype, kind)
        parts.append(struct.pack(f"<{len(dimensions) + 1}Q", *dimensions, len(t.data)))
    parts += [t.data for t in tensors]
    return b"".join(parts)


def out_of(name: str, array: Any, numpy: Any, content_type: str = "") -> Out:
    """Return an array of one of the kinds RAW: little-endian, in rows."""
    # ascontiguousarray makes a shape of () one of (1,).
    plain = numpy.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    data = memoryview(plain.reshape(-1).view("B")) if plain.nbytes else b""
    return Out(name, plain.dtype.str, content_type, array.shape, data)


def elements(parts: Iterable[bytes]) -> bytes:
    """Return the buffer of elements of any length."""
    length = _LENGTH.pack
    return b"".join(chain.from_iterable((length(len(part)), part) for part in parts))


def nested(flat: list[Any], shape: list[int]) -> Any:
    """Return the elements as nested lists of that shape."""
    if not shape:
        return flat[0]
    if 0 in shape:
        return [nested([], shape[1:]) for _ in range(shape[0])]
    for size in reversed(shape[1:]):
        flat = [flat[at : at + size] for at in range(0, len(flat), size)]
    return flat


def _numpy() -> Any:
    try:
        import numpy
    except ImportError:
        return None
    return numpy


def _array(numpy: Any, dtype: str, shape: list[int], size: int, body: Any, at: int) -> Any:
    """Return a copy of the elements of a message."""
    if dtype == ELEMENTS or numpy is None:
        return _listed(numpy, dtype, shape, body[at : at + size])
    if not size:
        return numpy.empty(shape, "<f4" if dtype == BF16 else dtype)
    if dtype == BF16:
        return _widened(numpy, numpy.frombuffer(body, "<u2", size // 2, at)).reshape(shape)
    if dtype == "|b1":
        return (numpy.frombuffer(body, "B", size, at) != 0).reshape(shape)
    kind = numpy.dtype(dtype)
    return numpy.frombuffer(body, kind, size // kind.itemsize, at).copy().reshape(shape)


def _read(numpy: Any, dtype: str, shape: list[int], size: int, file: int, place: int) -> Any:
    """Return a copy of elements in the shared memory."""
    if numpy is None or dtype in (ELEMENTS, BF16, "|b1"):
        data = bytearray(size)
        fill(file, place, memoryview(data))
        return _array(numpy, dtype, shape, size, data, 0)
    array = numpy.empty(shape, dtype)
    fill(file, place, memoryview(array.reshape(-1).view("B")))
    return array


def fill(file: int, place: int, memory: memoryview) -> None:
    """Read the shared memory from a place on."""
    while memory:
        if _preadv is not None:
            n = _preadv(file, [memory], place)
        else:
            piece = os.pread(file, len(memory), place)
            n = len(piece)
            memory[:n] = piece
        if n <= 0:
            raise ValueError(f"{len(memory)} bytes at {place} of the shared memory are missing")
        memory, place = memory[n:], place + n


def _widened(numpy: Any, halves: Any) -> Any:
    """Return bfloat16, which numpy has not, as float32: the same numbers."""
    return (halves.astype("<u4") << 16).view("<f4")


def _listed(numpy: Any, dtype: str, shape: list[int], data: Any) -> Any:
    """Return elements of any length as an array of bytes, or without numpy all elements as nested lists."""
    if dtype == ELEMENTS:
        flat: list[Any] = []
        at, end, length = 0, len(data), _LENGTH.unpack_from
        while at < end:
            (n,) = length(data, at)
            at += 4 + n
            flat.append(bytes(data[at - n : at]))
        if numpy is None:
            return nested(flat, shape)
        array = numpy.empty(len(flat), object)
        array[:] = flat
        return array.reshape(shape)
    if dtype == BF16:
        wide = bytearray(2 * len(data))
        wide[2::4], wide[3::4] = data[::2], data[1::2]
        data, dtype = wide, "<f4"
    return nested(list(struct.unpack(f"<{prod(shape)}{FORMATS[dtype]}", data)), shape)
