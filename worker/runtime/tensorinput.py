"""Makes of tensors what user code gets.

User code gets a dict of arrays by their names. The content types are those of MLServer's codecs: of one tensor, what
its elements stand for (str, base64, datetime, and JSON texts); of the request, what its tensors are together (np: the
only array, str: a list of texts, pd: the columns of a pandas DataFrame). Unknown ones mean nothing, as there.
"""

from __future__ import annotations

import base64
import binascii
import json
import sys
from datetime import datetime
from typing import Any, Callable

from codec import decode_request
from tensors import ELEMENTS, LIST, ONE, TENSORS, InputError, Tensor, Tensors, unpack

BYTES = "application/octet-stream"
JSON_TYPES = ("hg_json", "hg_jsonlist", "pd_json")


def named(got: Tensors) -> dict[str, Any]:
    """Return the arrays by their names."""
    return {tensor.name: _meant(tensor) for tensor in got.list}


def value_of(got: Tensors, arrays: dict[str, Any]) -> Any:
    """Return what user code gets."""
    if got.whole == "np":
        return arrays[_only(got).name]
    if got.whole == "str":
        return texts(_only(got))
    if got.whole == "pd":
        return frame(got)
    return arrays


def decode_value(content_type: str, body: Any) -> Any:
    """Return the input of postprocess: what a computation elsewhere returned."""
    if content_type == BYTES:
        return bytes(body)
    if content_type != TENSORS:
        return decode_request(bytes(body), content_type)
    got = unpack(body)
    if got.layout == ONE:
        return _meant(got.list[0])
    return [_meant(tensor) for tensor in got.list] if got.layout == LIST else named(got)


def texts(tensor: Tensor) -> list[str]:
    """Return the elements of a BYTES tensor as a flat list of text."""
    if tensor.dtype != ELEMENTS:
        raise InputError(f"the input {tensor.name!r} has to be a BYTES tensor, to be a list of text")
    return [_text(element, tensor.name) if type(element) is bytes else element for element in flat(tensor.array)]


def frame(got: Tensors) -> Any:
    """Return a DataFrame whose columns are the tensors. BYTES without a content type are text, as in a table."""
    try:
        import pandas
    except ImportError:
        raise InputError(
            "the content_type pd needs pandas, which the endpoint's Python cannot import: "
            "install it, or send the tensors without a content_type"
        ) from None
    columns = {tensor.name: column(tensor) for tensor in got.list}
    rows = {len(values) for values in columns.values()}
    if len(rows) > 1:
        raise InputError(f"the columns have different numbers of rows: {sized(columns)}")
    return pandas.DataFrame({name: _series(pandas, values) for name, values in columns.items()})


def column(tensor: Tensor) -> Any:
    """Return the elements of a tensor [n] or [n, 1] as a flat array, or as a list if they are not numbers."""
    shape = tensor.shape
    if len(shape) != 1 and (len(shape) != 2 or shape[1] != 1):
        raise InputError(f"the input {tensor.name!r} has the shape {shape}; a column has [n] or [n, 1]")
    if tensor.dtype == ELEMENTS:
        if tensor.content_type in MEANINGS:
            return flat(_meant(tensor))
        return [_text(element, tensor.name) for element in flat(tensor.array)]
    return flat(tensor.array) if isinstance(tensor.array, list) else tensor.array.reshape(-1)


def sized(columns: dict[str, Any]) -> str:
    """Describe the lengths of columns."""
    return ", ".join(f"{name!r} {len(values)}" for name, values in list(columns.items())[:10])


def flat(array: Any) -> list[Any]:
    """Return the elements of an array or of nested lists."""
    if not isinstance(array, list):
        return list(array.reshape(-1).tolist())
    while array and type(array[0]) is list:
        array = [element for part in array for element in part]
    return array


def _series(pandas: Any, values: Any) -> Any:
    """Return a column; the type of one that is a list stays object, as in a DataFrame that was sent."""
    return pandas.Series(values, dtype=object) if isinstance(values, list) else values


def _only(got: Tensors) -> Tensor:
    if len(got.list) != 1:
        raise InputError(
            f"the request's content_type {got.whole} is for one tensor, and it has {len(got.list)}: "
            "send it without, to get them by name"
        )
    return got.list[0]


def _meant(tensor: Tensor) -> Any:
    """Return the array with what its elements stand for."""
    meaning = MEANINGS.get(tensor.content_type)
    if meaning is None or tensor.dtype != ELEMENTS:
        return tensor.array
    array = tensor.array
    if isinstance(array, list):
        return _mapped(array, meaning, tensor.name)
    made = sys.modules["numpy"].empty(array.size, object)
    for at, element in enumerate(array.reshape(-1).tolist()):
        made[at] = meaning(element, tensor.name)
    return made.reshape(array.shape)


def _mapped(array: list[Any], meaning: Callable[[bytes, str], Any], name: str) -> list[Any]:
    return [_mapped(each, meaning, name) if type(each) is list else meaning(each, name) for each in array]


def _text(element: bytes, name: str) -> str:
    try:
        return element.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"the input {name!r} has an element that is not UTF-8 text: {error}") from None


def _unpacked(element: bytes, _name: str) -> bytes:
    """Return the bytes of base64; others as they are, as MLServer does."""
    try:
        return base64.b64decode(element, validate=True)
    except (binascii.Error, ValueError):
        return element


def _moment(element: bytes, name: str) -> datetime:
    text = _text(element, name)
    try:
        return datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith("Z") else text)
    except ValueError as error:
        raise InputError(f"the input {name!r} has an element that is no date and time: {error}") from None


def _parsed(element: bytes, name: str) -> Any:
    try:
        return json.loads(element)
    except (ValueError, RecursionError) as error:
        raise InputError(f"the input {name!r} has an element that is not JSON: {error}") from None


MEANINGS: dict[str, Callable[[bytes, str], Any]] = {
    "str": _text,
    "base64": _unpacked,
    "datetime": _moment,
    **dict.fromkeys(JSON_TYPES, _parsed),
}
