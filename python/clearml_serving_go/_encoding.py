"""What is sent and received: values as JSON."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

JSON = "application/json"


def encode(data: Any) -> tuple[bytes, str]:
    """Return a body and its content type. Bytes are sent as they are."""
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data), "application/octet-stream"
    return dumps(data), JSON


def dumps(data: Any) -> bytes:
    """Write a value as JSON, with numpy arrays as lists and tables as lists of records."""
    try:
        return json.dumps(data, default=_plain, allow_nan=False, separators=(",", ":")).encode()
    except ValueError as e:
        if "JSON compliant" not in str(e):
            raise
        raise ValueError(
            "the request has NaN or an infinite number, which JSON cannot have: "
            "send None for a missing value, or arrays with infer()"
        ) from None


def loads(body: bytes, content_type: str) -> Any:
    """Return the value of an answer: of JSON its value, else the bytes."""
    kind = content_type.partition(";")[0].strip().lower()
    return json.loads(body) if kind == JSON or kind.endswith("+json") else body


def is_table(value: Any) -> bool:
    """Tell whether a value is a table of pandas, without importing pandas."""
    return hasattr(value, "columns") and hasattr(value, "to_dict")


def _plain(value: Any) -> Any:
    """Turn what JSON does not know into what it knows."""
    if is_table(value):
        return _records(value)
    if hasattr(value, "to_dicts"):  # a table of polars
        return value.to_dicts()
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    if kind in ("M", "m"):  # as numbers their unit would be lost
        return value.astype(str).tolist()
    if hasattr(value, "tolist"):  # arrays, scalars of numpy, columns of pandas
        return value.tolist()
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, (set, frozenset, tuple)):
        return list(value)
    hint = "; send bytes as the whole body" if isinstance(value, (bytes, bytearray, memoryview)) else ""
    raise TypeError(f"a value of the type {type(value).__name__} cannot be sent as JSON{hint}")


def _records(table: Any) -> Any:
    """Return the rows of a table as objects; what is missing is None."""
    if not table.columns.is_unique:
        twice = sorted({str(name) for name in table.columns[table.columns.duplicated()]})
        raise ValueError(f"the table has columns of the same name: {', '.join(twice)}")
    return table.astype(object).where(table.notna(), None).to_dict(orient="records")
