"""Encodes the result of preprocess and the input of postprocess, if the computation between them runs elsewhere.

A value crosses as JSON, as bytes, or, made of numpy arrays, as tensors: their descriptions and
then their raw buffers. worker/tensors.go mirrors this file; a change of one is a change of both.

    layout  u8   one array, a dict of arrays, or a list of arrays
    count   u16
    each: lengths of name u16 and dtype u8, dimensions u8, name, dtype, dimensions u64, bytes u64
    the buffers, one after another
"""

from __future__ import annotations

import struct
import sys
from typing import Any

from answer import JSON
from codec import decode_request, encode_json

BYTES = "application/octet-stream"
TENSORS = "application/x-tensors"

ONE, DICT, LIST = 0, 1, 2
RAW = "biufcSU"  # kinds of numpy arrays whose buffer is the whole content

_COUNT = struct.Struct("<BH")
_HEAD = struct.Struct("<HBB")
_SIZE = struct.Struct("<Q")


def encode_value(value: Any) -> tuple[str, bytes]:
    """Return content type and body of a value. Raises AnswerError for a value that cannot be encoded."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return BYTES, bytes(value)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        named = _named(value, numpy.ndarray)
        if named:
            return TENSORS, _pack(named[0], named[1], numpy)
    return JSON, encode_json(value)


def decode_value(content_type: str, body: memoryview) -> Any:
    """Return the value of a body from encode_value, or from the Go side."""
    if content_type == BYTES:
        return bytes(body)
    if content_type != TENSORS:
        return decode_request(bytes(body), content_type)
    import numpy

    layout, count = _COUNT.unpack_from(body)
    at = _COUNT.size
    heads = []
    for _ in range(count):
        n, d, dims = _HEAD.unpack_from(body, at)
        at += _HEAD.size
        name, dtype = str(body[at : at + n], "utf-8"), str(body[at + n : at + n + d], "ascii")
        at += n + d
        *shape, size = struct.unpack_from(f"<{dims + 1}Q", body, at)
        at += (dims + 1) * _SIZE.size
        heads.append((name, numpy.dtype(dtype), shape, size))
    arrays = []
    for _, dtype, shape, size in heads:
        # A copy, so that user code gets a writable, aligned array.
        arrays.append(numpy.frombuffer(bytearray(body[at : at + size]), dtype).reshape(shape))
        at += size
    if layout == ONE:
        return arrays[0]
    return arrays if layout == LIST else {head[0]: array for head, array in zip(heads, arrays)}


def _named(value: Any, ndarray: type) -> Any:
    """Return layout and (name, array) pairs of a value that consists of arrays, None for another."""
    if type(value) is ndarray:  # a subclass, such as a masked array, is more than its buffer
        layout, pairs = ONE, [("", value)]
    elif isinstance(value, dict) and value and all(type(name) is str for name in value):
        layout, pairs = DICT, list(value.items())
    elif isinstance(value, (list, tuple)) and value:
        layout, pairs = LIST, [("", array) for array in value]
    else:
        return None
    fits = all(type(array) is ndarray and array.dtype.kind in RAW for _, array in pairs)
    return (layout, pairs) if fits and len(pairs) <= 0xFFFF else None


def _pack(layout: int, pairs: list[tuple[str, Any]], numpy: Any) -> bytes:
    parts: list[Any] = [_COUNT.pack(layout, len(pairs))]
    buffers = []
    for name, array in pairs:
        # Little-endian, in rows; ascontiguousarray makes a shape of () one of (1,).
        plain = numpy.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        key, dtype = name.encode(), plain.dtype.str.encode()
        parts += (_HEAD.pack(len(key), len(dtype), array.ndim), key, dtype)
        parts.append(struct.pack(f"<{array.ndim + 1}Q", *array.shape, plain.nbytes))
        buffers.append(plain.reshape(-1).view("B") if plain.nbytes else b"")
    return b"".join(parts + buffers)
