"""Makes tensors of what user code returns: for a request with tensors, and for a computation elsewhere.

Arrays, numbers, text, bytes and lists of them become one tensor, a dict one for each key, and a list or tuple of arrays
one for each of them. Anything else becomes a tensor of JSON texts, whose content type is that of MLServer's codecs, as
that of text (str), of dates (datetime) and of a table's columns (pd).
"""

from __future__ import annotations

import json
import struct
import sys
from datetime import datetime
from itertools import chain
from typing import Any, Optional

from answer import JSON, Answer, AnswerError
from codec import encode_json, is_json
from plain import plain
from result import Outcome
from tensorinput import BYTES
from tensors import BF16, DICT, ELEMENTS, LIST, ONE, RAW, TENSORS, Out, elements, out_of, pack

Inputs = tuple[tuple[str, str], ...]  # names and dtypes ("" for any) of the inputs of a computation elsewhere

MOST_DIMENSIONS = 255
JSON_ONE, JSON_LIST, JSON_CELL = JSON_TYPES = "hg_json", "hg_jsonlist", "pd_json"
INT64, UINT64 = (-(1 << 63), 1 << 63), (0, 1 << 64)
NUMBERS = {(bool,): ("|b1", "?"), (float,): ("<f8", "d")}


def tensor_answer(outcome: Outcome, names: tuple[str, ...]) -> Answer:
    """Return the answer of a result that is no stream. The names are those of outputs without one."""
    value = outcome.value
    if outcome.body is not None:
        value = _body(outcome.body, outcome.content_type)
        outs, whole = [value._replace(name=name_of(0, names))], ""
    else:
        outs, whole = tensors_of(value, names)
    return Answer(outcome.status, TENSORS, pack(DICT, outs, whole), outcome.headers)


def encode_value(value: Any, inputs: Inputs = ()) -> tuple[str, bytes]:
    """Return content type and body of what preprocess returned, for a computation elsewhere.

    What is made of arrays is sent as tensors; arrays without names are the inputs in their order. Anything else is
    sent as bytes or JSON. Raises AnswerError for a value that cannot be encoded, ValueError for arrays that are no
    inputs.
    """
    if isinstance(value, (bytes, bytearray, memoryview)):
        return BYTES, bytes(value)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        layout, pairs = _arrays(value)
        if pairs and all(type(array) is numpy.ndarray and array.dtype.kind in RAW for _, array in pairs):
            if inputs:
                layout, pairs = DICT, _fitted(pairs, inputs, numpy)
            return TENSORS, pack(layout, [out_of(name, array, numpy) for name, array in pairs])
        if any(_is_array(part) for _, part in pairs):
            outs, whole = tensors_of(value, tuple(name for name, _ in inputs))
            if not any(out.content_type in JSON_TYPES for out in outs):
                return TENSORS, pack(DICT, outs, whole)
    try:
        return JSON, encode_json(value, exact=True)
    except AnswerError:
        text = _with_nan(value)
        if text is None:
            raise
        return JSON, text


def _arrays(value: Any) -> tuple[int, list[tuple[str, Any]]]:
    """Return layout and named parts of a value that may be arrays."""
    if isinstance(value, dict) and all(type(name) is str for name in value):
        return DICT, list(value.items())
    if isinstance(value, (list, tuple)):
        if not value or not _is_array(value[0]):
            return LIST, []
        return LIST, [("", part) for part in value]
    return ONE, [("", value)]


def _fitted(pairs: list[tuple[str, Any]], inputs: Inputs, numpy: Any) -> list[tuple[str, Any]]:
    """Return arrays with the names and dtypes of inputs. An array that would change its numbers is refused."""
    if len(pairs) == len(inputs) and all(name == "" for name, _ in pairs):
        pairs = [(name, array) for (name, _), (_, array) in zip(inputs, pairs)]
    kinds, fitted = dict(inputs), []
    for at, (name, array) in enumerate(pairs):
        kind = kinds.get(name, "")
        if kind and kind not in (ELEMENTS, BF16) and array.dtype.kind in "biuf" and array.dtype != numpy.dtype(kind):
            with numpy.errstate(all="ignore"):
                changed = array.astype(kind)
                same = changed.dtype.kind == "f" or bool((changed == array).all())
            if not same:
                raise ValueError(
                    f"preprocess returned {array.dtype} for the model's input {name!r}, which takes {changed.dtype}, "
                    "and not all of its numbers are the same as such"
                )
            array = changed
        fitted.append((name or f"input-{at}", array))
    return fitted


def _with_nan(value: Any) -> Optional[bytes]:
    """Return JSON with NaN and infinities as Python writes and reads them; None if that is not why it failed."""
    try:
        return json.dumps(value, separators=(",", ":"), default=plain).encode()
    except Exception:
        return None


def tensors_of(value: Any, names: tuple[str, ...] = ()) -> tuple[list[Out], str]:
    """Return the tensors of a result, and what they are together. Raises AnswerError."""
    if isinstance(value, dict) and value and all(type(name) is str for name in value):
        return _checked([tensor_of(name, part) for name, part in value.items()]), ""
    pandas = sys.modules.get("pandas")
    if pandas is not None:
        if isinstance(value, getattr(pandas, "DataFrame", ())):
            return _checked([_column(str(name), value.iloc[:, at]) for at, name in enumerate(value.columns)]), "pd"
        if isinstance(value, getattr(pandas, "Series", ())):
            name = name_of(0, names) if value.name is None else str(value.name)
            return [_column(name, value, flat=True)], ""
    if isinstance(value, (list, tuple)) and value and all(_is_array(part) for part in value):
        return _checked([tensor_of(name_of(at, names), part) for at, part in enumerate(value)]), ""
    return [tensor_of(name_of(0, names), value)], ""


def name_of(at: int, names: tuple[str, ...]) -> str:
    """Return the name of an output without one."""
    return names[at] if at < len(names) else f"output-{at}"


def tensor_of(name: str, value: Any) -> Out:
    """Return the tensor of a value."""
    made = None
    if _is_array(value):
        made = _of_array(name, value)
    elif isinstance(value, (list, tuple)):
        made = _of_list(name, value)
    elif not isinstance(value, dict):
        made = _of_list(name, [value], alone=True)
    if made is not None:
        return made
    if isinstance(value, (list, tuple)) and value and all(isinstance(part, dict) for part in value):
        return Out(name, ELEMENTS, JSON_LIST, (len(value),), elements([encode_json(part) for part in value]))
    return Out(name, ELEMENTS, JSON_ONE, (1,), elements([encode_json(value)]))


def _checked(outs: list[Out]) -> list[Out]:
    if len({out.name for out in outs}) < len(outs):
        raise AnswerError(f"two outputs have the same name: {', '.join(out.name for out in outs)}")
    if len(outs) > 0xFFFF or any(len(out.name) > 0x3FFF for out in outs):
        raise AnswerError("the answer has more than 65535 outputs, or a name of more than 16383 characters")
    return outs


def _is_array(value: Any) -> bool:
    """Return whether a value is an array of NumPy or of a library whose arrays NumPy reads."""
    kind = type(value)
    return hasattr(kind, "__array__") and getattr(value, "shape", None) is not None


def _of_array(name: str, value: Any) -> Optional[Out]:
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return None
    if type(value).__module__.startswith("numpy.ma"):  # what is masked is null
        return _of_list(name, value.tolist())
    if callable(getattr(value, "detach", None)):  # PyTorch refuses a conversion while it records gradients
        value = value.detach()
        if str(value.dtype) == "torch.bfloat16":
            value = value.float()
    try:
        array = numpy.asarray(value)
    except Exception:
        return None  # JSON may know how, or says why not
    if array.ndim == 0:
        array = array.reshape(1)
    kind = array.dtype.kind
    if kind in "biuf":
        return out_of(name, array.astype("f8") if array.dtype.itemsize > 8 else array, numpy)
    if kind in "SU":
        parts = array.reshape(-1).tolist()
        data = [part.encode("utf-8", "surrogatepass") for part in parts] if kind == "U" else parts
        return Out(name, ELEMENTS, "str" if kind == "U" else "", array.shape, elements(data))
    if kind == "M":
        texts = numpy.datetime_as_string(array).reshape(-1).tolist()
        return Out(name, ELEMENTS, "datetime", array.shape, elements([text.encode() for text in texts]))
    if array.dtype.name == "bfloat16":
        return out_of(name, array.view("<u2"), numpy)._replace(dtype=BF16)
    if kind == "O":
        made = _of_list(name, array.reshape(-1).tolist())
        return None if made is None else made._replace(shape=array.shape)
    return None


def _of_list(name: str, value: Any, alone: bool = False) -> Optional[Out]:
    """Return the tensor of a list of numbers, text, bytes or dates, also of nested ones of one form; else None."""
    shape, level = [], [value]
    while level and all(type(part) is list or type(part) is tuple for part in level):
        size = len(level[0])
        if any(len(part) != size for part in level) or len(shape) == MOST_DIMENSIONS:
            return None
        shape.append(size)
        level = list(chain.from_iterable(level))
    kinds = set(map(type, level))
    if not level:
        return Out(name, "<f8", "", shape, b"")
    number = _numbers(level, kinds)
    if number is not None:
        return Out(name, number[0], "", shape, struct.pack(f"<{len(level)}{number[1]}", *level))
    if kinds == {str}:
        return Out(name, ELEMENTS, "str", shape, elements([part.encode("utf-8", "surrogatepass") for part in level]))
    if kinds <= {bytes, bytearray, memoryview}:
        return Out(name, ELEMENTS, "", shape, elements([bytes(part) for part in level]))
    if kinds == {datetime}:
        return Out(name, ELEMENTS, "datetime", shape, elements([part.isoformat().encode() for part in level]))
    numpy = sys.modules.get("numpy")
    if numpy is None or not any(issubclass(kind, numpy.generic) for kind in kinds):
        return None
    if not all(issubclass(kind, (numpy.number, numpy.bool_, int, float)) for kind in kinds):
        return None
    array = numpy.asarray(level)
    if array.dtype.kind not in RAW[:4]:
        return None
    made = _of_array(name, array)
    return None if made is None else made._replace(shape=[1] if alone else shape)


def _numbers(level: list[Any], kinds: set[type]) -> Optional[tuple[str, str]]:
    """Return the dtype of Python's numbers, and its format; None if they are not all numbers of one sort."""
    if kinds == {int}:
        low, high = min(level), max(level)
        if INT64[0] <= low and high < INT64[1]:
            return "<i8", "q"
        return ("<u8", "Q") if UINT64[0] <= low and high < UINT64[1] else None
    if kinds == {int, float}:
        try:
            for part in level:
                float(part)
        except OverflowError:
            return None
        return NUMBERS[float,]
    return NUMBERS.get(tuple(kinds))  # type: ignore[arg-type]


def _column(name: str, series: Any, flat: bool = False) -> Out:
    """Return a column of a DataFrame: [n, 1], as MLServer's clients know it."""
    values = series.to_numpy()
    out = _of_array(name, values) if values.dtype.kind in "biufM" else _of_list(name, values.tolist())
    if out is None:
        out = Out(name, ELEMENTS, JSON_CELL, (), elements([encode_json(cell) for cell in values.tolist()]))
    return out._replace(shape=(len(series),) if flat else (len(series), 1))


def _body(body: bytes, content_type: Optional[str]) -> Out:
    """Return the tensor of a response's body."""
    kind = content_type or ""
    meaning = "str" if kind.startswith("text/") else JSON_ONE if kind and is_json(kind) else ""
    return Out("", ELEMENTS, meaning, (1,), elements([body]))
