"""Converts values of many libraries to plain ones: a step towards JSON.

Libraries are recognised by the shape of their objects, never imported: a worker that does not use pandas does
not import it, and unknown versions work as well.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import fractions
import pathlib
import types
import uuid
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import lru_cache
from typing import Any, Callable


class NotPlainError(Exception):
    """A value without a JSON form; the text has its type and what to do."""


def plain(value: Any) -> Any:
    """Return value one step simpler; the parts of the result may need another step.

    Raises NotPlainError, also if the value's own conversion fails.
    """
    kind = type(value)
    try:
        simpler = _way(kind)(value)
    except NotPlainError:
        raise
    except Exception as error:
        raise NotPlainError(f"a {kind.__name__} cannot be written as JSON: {type(error).__name__}: {error}") from error
    if type(simpler) is kind and kind not in (dict, list):
        raise NotPlainError(f"a {kind.__name__} cannot be written as JSON: convert it in postprocess")
    return simpler


@lru_cache(maxsize=256)
def _way(kind: type) -> Callable[[Any], Any]:
    """Return the conversion for a type: the most specific first."""
    for known, way in KNOWN:
        if issubclass(kind, known):
            return way
    if dataclasses.is_dataclass(kind):
        return _fields
    if hasattr(kind, "__attrs_attrs__"):
        return _attrs_fields
    if callable(getattr(kind, "dict", None)) and not hasattr(kind, "model_dump") and hasattr(kind, "__fields__"):
        return _old_model
    for method, way in BY_METHOD:
        if callable(getattr(kind, method, None)):
            return way
    if kind.__name__ in ("NAType", "NaTType"):  # pandas: a missing value
        return _nothing
    if issubclass(kind, Mapping):
        return dict
    if issubclass(kind, (AbstractSet, Iterator, Sequence)) or callable(getattr(kind, "__array__", None)):
        return list
    return _attributes


def _nothing(_: Any) -> None:
    return None


def _iso(value: Any) -> Any:
    # pandas.NaT counts as a datetime; like every missing value it differs from itself.
    return value.isoformat() if value == value else None


def _text(value: Any) -> str:
    try:
        return str(value, "utf-8")
    except UnicodeDecodeError:
        raise NotPlainError(
            f"{len(value)} bytes that are not UTF-8 text have no JSON form: encode them (base64), "
            "or return clearml_serving_worker.Response(body, content_type=...) to send them as they are"
        ) from None


def _decimal(value: decimal.Decimal) -> Any:
    exponent = value.as_tuple().exponent
    return int(value) if isinstance(exponent, int) and exponent >= 0 else float(value)


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def _attrs_fields(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in type(value).__attrs_attrs__}


def _model(value: Any) -> Any:
    return value.model_dump(mode="json", by_alias=True)


def _old_model(value: Any) -> Any:
    return value.dict(by_alias=True)


def _records(value: Any) -> Any:
    return value.to_dict(orient="records")


def _array(value: Any) -> Any:
    """Return the numbers of an array or scalar of NumPy, PyTorch, JAX or a pandas column."""
    dtype = getattr(value, "dtype", None)
    kind = getattr(dtype, "kind", "")
    if kind in ("M", "m") and str(dtype)[-4:] in FINER and type(value).__module__ == "numpy":
        # tolist would return these as plain integers.
        return value.astype("datetime64[us]" if kind == "M" else "timedelta64[us]").tolist()
    if kind == "f" and dtype.itemsize > 8 and callable(getattr(value, "astype", None)):
        return value.astype("float64").tolist()
    if kind == "c":
        return _complex(value)
    return value.tolist()


def _complex(_: Any) -> Any:
    raise NotPlainError("complex numbers have no JSON form: send their real and imaginary parts")


def _attributes(value: Any) -> Any:
    """Return the attributes of an object of the user's own, as FastAPI does."""
    attributes = getattr(value, "__dict__", None)
    if attributes is None or isinstance(value, NEVER):
        kind = type(value).__name__
        raise NotPlainError(
            f"a {kind} cannot be written as JSON: convert it in postprocess to dicts, lists and numbers"
        )
    return dict(attributes)


NEVER = (type, types.ModuleType, types.FunctionType, types.MethodType)
FINER = ("[ns]", "[ps]", "[fs]", "[as]")  # units of time below Python's microsecond

KNOWN: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    (enum.Enum, lambda value: value.value),
    ((datetime.datetime, datetime.date, datetime.time), _iso),
    (datetime.timedelta, lambda value: value.total_seconds() if value == value else None),
    (decimal.Decimal, _decimal),
    (fractions.Fraction, float),
    ((bytes, bytearray, memoryview), _text),
    ((uuid.UUID, pathlib.PurePath), str),
    (complex, _complex),
    ((set, frozenset, range, types.GeneratorType, type({}.keys()), type({}.values()), type({}.items())), list),
)

BY_METHOD: tuple[tuple[str, Callable[[Any], Any]], ...] = (
    ("model_dump", _model),  # Pydantic 2
    ("to_dicts", lambda value: value.to_dicts()),  # Polars
    ("to_pylist", lambda value: value.to_pylist()),  # Arrow
    ("iterrows", _records),  # a pandas DataFrame
    ("tolist", _array),
    ("numpy", lambda value: value.numpy()),  # TensorFlow
)
