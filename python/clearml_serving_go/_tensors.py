"""Requests and answers of the Open Inference Protocol (V2).

Arrays of numpy are sent and received as binary data. Lists are sent as JSON, in which the service
reads every number exactly. Without numpy, answers are lists too.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Optional

from ._encoding import dumps, is_table

try:
    import numpy
except ImportError:  # the client works without it
    numpy = None  # type: ignore[assignment]

LENGTH = "inference-header-content-length"

_TO_NUMPY = {
    "BOOL": "?",
    "UINT8": "<u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "<i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}
_FROM_NUMPY = {code.lstrip("<"): datatype for datatype, code in _TO_NUMPY.items()} | {"b1": "BOOL"}


def is_array(value: Any) -> bool:
    """Tell whether a value is sent as binary data."""
    return numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic))


def columns(inputs: Any) -> Mapping[str, Any]:
    """Return the inputs by name; each column of a table is an input."""
    if is_table(inputs):
        if not inputs.columns.is_unique:
            raise ValueError("the table has columns of the same name, but inputs have different ones")
        return {str(name): inputs[name].to_numpy() for name in inputs.columns}
    if not isinstance(inputs, Mapping):
        raise TypeError(f"inputs are a mapping of names to arrays or lists, or a table, not {type(inputs).__name__}")
    return inputs


def request(
    inputs: Mapping[str, Any],
    datatypes: Mapping[str, str],
    outputs: Optional[Sequence[str]],
    parameters: Optional[Mapping[str, Any]],
    request_id: Optional[str],
) -> tuple[bytes, dict[str, str]]:
    """Return the body and the headers of a request."""
    described: list[dict[str, Any]] = []
    raw: list[bytes] = []
    for name, value in inputs.items():
        if is_array(value):
            entry, data = _binary(name, numpy.asarray(value), datatypes.get(name))
            raw.append(data)
        else:
            entry = _listed(name, value, datatypes.get(name))
        described.append(entry)
    binary = numpy is not None
    message: dict[str, Any] = {"inputs": described}
    if request_id is not None:
        message["id"] = request_id
    params = dict(parameters or {})
    if outputs is not None:
        message["outputs"] = [
            {"name": name, **({"parameters": {"binary_data": True}} if binary else {})} for name in outputs
        ]
    elif binary:
        params["binary_data_output"] = True
    if params:
        message["parameters"] = params
    head = dumps(message)
    if not raw:
        return head, {"Content-Type": "application/json"}
    return b"".join([head, *raw]), {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(len(head)),
    }


def answer(body: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
    """Return the outputs of an answer by name."""
    size = int(headers.get(LENGTH, len(body)))
    message = json.loads(body[:size])
    found: dict[str, Any] = {}
    at = size
    for output in message.get("outputs", []):
        length = output.get("parameters", {}).get("binary_data_size")
        if length is not None:
            found[output["name"]] = _from_binary(output, body[at : at + length])
            at += length
        else:
            found[output["name"]] = _from_list(output)
    return found


def _binary(name: str, array: Any, datatype: Optional[str]) -> tuple[dict[str, Any], bytes]:
    code = array.dtype.newbyteorder("=").str.lstrip("<>|=")
    own = _FROM_NUMPY.get(code) or ("BYTES" if array.dtype.kind in "OSU" else None)
    if own is None:
        raise TypeError(f"input {name!r}: the protocol has no datatype for arrays of {array.dtype}")
    if datatype is not None and datatype != own:
        raise TypeError(f"input {name!r} is {datatype}, but the array is {own}: convert it with astype")
    if own == "BYTES":
        data = b"".join(_element(name, element) for element in array.reshape(-1))
    else:
        data = array.astype(_TO_NUMPY[own], copy=False).tobytes()
    entry = {"name": name, "shape": list(array.shape), "datatype": own, "parameters": {"binary_data_size": len(data)}}
    return entry, data


def _element(name: str, element: Any) -> bytes:
    if isinstance(element, str):
        element = element.encode()
    if not isinstance(element, bytes):
        raise TypeError(f"input {name!r}: an element of the type {type(element).__name__} is neither text nor bytes")
    return struct.pack("<I", len(element)) + element


def _listed(name: str, value: Any, datatype: Optional[str]) -> dict[str, Any]:
    if not isinstance(value, (list, tuple)):
        value = [value]
    shape: list[int] = []
    level: list[Any] = [value]
    while level and all(isinstance(v, (list, tuple)) for v in level):
        sizes = {len(v) for v in level}
        if len(sizes) != 1:
            raise ValueError(f"input {name!r}: the lists are of different lengths at depth {len(shape) + 1}")
        shape.append(sizes.pop())
        level = [element for v in level for element in v]
    if any(isinstance(v, (list, tuple)) for v in level):
        raise ValueError(f"input {name!r}: lists and values are mixed at depth {len(shape) + 1}")
    return {"name": name, "shape": shape, "datatype": datatype or _guess(name, level), "data": level}


def _guess(name: str, elements: Iterable[Any]) -> str:
    """Return the datatype of values about which neither the caller nor the service says anything."""
    kinds = {type(element) for element in elements}
    for python, datatype in ((bool, "BOOL"), (int, "INT64"), (str, "BYTES")):
        if kinds == {python}:
            return datatype
    if kinds <= {int, float}:
        return "FP64"
    raise TypeError(f"input {name!r} has values of the types {', '.join(sorted(k.__name__ for k in kinds))}")


def _from_binary(output: Mapping[str, Any], data: bytes) -> Any:
    datatype, shape = output["datatype"], output["shape"]
    if datatype == "BYTES":
        elements = list(_elements(data))
        array = numpy.empty(len(elements), dtype=object)
        try:
            array[:] = [element.decode() for element in elements]
        except UnicodeDecodeError:
            array[:] = elements
        return array.reshape(shape)
    if datatype == "BF16":  # the upper half of an FP32, which numpy has
        wide = numpy.frombuffer(data, "<u2").astype("<u4") << 16
        return wide.view("<f4").reshape(shape)
    return numpy.frombuffer(data, _TO_NUMPY[datatype]).reshape(shape).copy()  # of its own, and writable


def _elements(data: bytes) -> Iterable[bytes]:
    at = 0
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at)
        yield data[at + 4 : at + 4 + length]
        at += 4 + length


def _from_list(output: Mapping[str, Any]) -> Any:
    elements = list(_flat(output["data"]))
    if output["datatype"].startswith(("FP", "BF")):
        elements = [math.nan if element is None else element for element in elements]
    if numpy is not None:
        code = _TO_NUMPY.get(output["datatype"], "<f4" if output["datatype"] == "BF16" else "O")
        return numpy.array(elements, dtype=code).reshape(output["shape"])
    return _nested(elements, output["shape"])


def _flat(data: Any) -> Iterable[Any]:
    for element in data:
        if isinstance(element, list):
            yield from _flat(element)
        else:
            yield element


def _nested(elements: list[Any], shape: Sequence[int]) -> Any:
    if len(shape) <= 1:
        return elements
    size = len(elements) // shape[0] if shape[0] else 0
    return [_nested(elements[i * size : (i + 1) * size], shape[1:]) for i in range(shape[0])]
