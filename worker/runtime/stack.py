"""Predicts rows of several requests together.

Owns which rows may be put into one array, how, and how the result is split. Incompatible rows are grouped; a
batch that fails is split, so that a bad row fails alone.
"""

from __future__ import annotations

import sys
from typing import Any, Callable, Optional

Step = Callable[[Any, Any, Any], Any]
CHECKS = 3  # batches whose last request is also predicted alone, to check that rows do not affect each other


class Case:
    """One request of a batch."""

    __slots__ = (
        "answer",
        "collect",
        "collected",
        "data",
        "error",
        "key",
        "meta",
        "number",
        "request",
        "rows",
        "state",
        "step",
        "tensors",
        "trace",
    )

    def __init__(self, number: int, meta: dict[str, Any]) -> None:
        self.number = number
        self.meta = meta
        self.state: dict[Any, Any] = {}
        self.collected: Optional[dict[Any, Any]] = None
        self.collect: Any = None
        self.request: Any = None
        self.data: Any = None  # the result of preprocess, later that of predict
        self.error: Optional[BaseException] = None
        self.answer: Any = None  # set early if there is nothing to predict
        self.rows = 1
        self.trace: Any = None  # of a traced request
        self.step: Optional[Step] = None  # in place of the endpoint's predict
        self.tensors = False  # asked with tensors, so it is answered with tensors
        self.key: Any = None  # requests with the same key are compatible; None is compatible with nothing


class Stack:
    """Predicts cases together: sets data or error of each. It never raises errors of user code."""

    def measure(self, case: Case) -> None:
        """Determine the rows of a case and the cases that it can be combined with."""
        case.key, case.rows = shape_of(case.data)
        if case.step is not None:
            case.key = None
        if case.tensors and case.key is not None:
            case.key += ("tensors",)  # the same values of other types may be answered otherwise

    def run(self, cases: list[Case]) -> None:
        """Predict all cases, each compatible group at once."""
        if len(cases) == 1:
            self._apart(cases[0])
            return
        groups: dict[Any, list[Case]] = {}
        for case in cases:
            groups.setdefault(id(case) if case.key is None else case.key, []).append(case)
        for group in groups.values():
            self._divide(group)

    def _divide(self, cases: list[Case]) -> None:
        """Predict a group; if that fails, predict its halves, until the failing cases are alone."""
        if len(cases) == 1:
            self._apart(cases[0])
            return
        failed, results = False, None
        try:
            results = self._together(cases)
        except BaseException:
            failed = True  # the halves are predicted outside, where their errors do not have this one as their cause
        if failed:
            middle = len(cases) // 2
            self._divide(cases[:middle])
            self._divide(cases[middle:])
            return
        if results is None:
            for case in cases:
                self._apart(case)
            return
        for case, result in zip(cases, results):
            if isinstance(result, BaseException):
                case.error = result
            else:
                case.data = result

    def _apart(self, case: Case) -> None:
        try:
            case.data = self._alone(case)
        except BaseException as error:
            case.error = error

    def _alone(self, case: Case) -> Any:
        raise NotImplementedError

    def _together(self, cases: list[Case]) -> Optional[list[Any]]:
        """Return a result for each case, or None if they must be predicted separately."""
        raise NotImplementedError


class ModelStack(Stack):
    """Rows of a model engine, put into one array."""

    def __init__(self, predict: Step, log: Callable[[str, str], None]) -> None:
        self._predict = predict
        self._log = log
        self._checks = CHECKS
        self._off = False

    def _alone(self, case: Case) -> Any:
        return (case.step or self._predict)(case.data, case.state, case.collect)

    def _together(self, cases: list[Case]) -> Optional[list[Any]]:
        if self._off:
            return None
        result = self._predict(joined(cases), {}, None)
        parts = parted(result, [case.rows for case in cases])
        if parts is None:
            self._give_up(f"predict of {sum(case.rows for case in cases)} rows returned {outline(result)}")
        elif self._checks > 0:
            self._checks -= 1
            if not same(self._alone(cases[-1]), parts[-1]):
                parts = None
                self._give_up("predict answers a row otherwise when others are beside it")
        return parts

    def _give_up(self, why: str) -> None:
        self._off = True
        self._log("warning", f"batching is off, requests are predicted one by one: {why}")


class CodeStack(Stack):
    """Requests of a custom engine, passed to the process_batch of user code."""

    def __init__(self, process_batch: Step, wait: Callable[[Any], Any]) -> None:
        self._process = process_batch
        self._wait = wait

    def measure(self, case: Case) -> None:
        """Count rows; cases are compatible, as user code gets a list, but it may expect one sort of values in it."""
        case.key, case.rows = "tensors" if case.tensors else "code", rows_of(case.data)
        if case.tensors and type(case.data) is dict:
            case.rows = max((rows_of(array) for array in case.data.values()), default=1)

    def step(self, data: Any, state: Any, collect: Any) -> Any:
        """Process one request: a batch of one."""
        result = self._results([data], [state], [collect])[0]
        if isinstance(result, BaseException):
            raise result
        return result

    def _alone(self, case: Case) -> Any:
        return self.step(case.data, case.state, case.collect)

    def _together(self, cases: list[Case]) -> Optional[list[Any]]:
        return self._results(
            [case.data for case in cases], [case.state for case in cases], [case.collect for case in cases]
        )

    def _results(self, data: list[Any], states: list[Any], collects: list[Any]) -> list[Any]:
        results = self._process(data, states, collects)
        if hasattr(type(results), "__await__"):
            results = self._wait(results)
        if not hasattr(type(results), "__len__") or isinstance(results, (str, bytes, dict)):
            raise TypeError(
                f"process_batch has to return a list with a result for each request, not {outline(results)}"
            )
        if len(results) != len(data):
            raise TypeError(f"process_batch got {len(data)} requests and returned {len(results)} results")
        return list(results)


def rows_of(data: Any) -> int:
    """Return the rows of a table, one for anything else."""
    table = (data and type(data[0]) in (list, tuple)) if type(data) is list else getattr(data, "ndim", 0) > 1
    return max(len(data), 1) if table else 1


def shape_of(data: Any) -> tuple[Any, int]:
    """Return the key of compatible data (None: compatible with nothing) and its rows."""
    kind = type(data)
    if kind is list:
        return _list_key(data), len(data) or 1
    numpy = sys.modules.get("numpy")
    if numpy is not None and kind is numpy.ndarray:
        shape = data.shape
        return ((kind, data.dtype, shape[1:]), shape[0]) if shape and shape[0] else (None, 1)
    pandas = sys.modules.get("pandas")
    if pandas is not None and kind is getattr(pandas, "DataFrame", None):
        rows = len(data)
        return ((kind, tuple(data.columns), tuple(data.dtypes)), rows) if rows else (None, 1)
    shape = getattr(data, "shape", None)  # another library's table: not combined, but its rows count
    if isinstance(shape, tuple) and len(shape) > 1 and isinstance(shape[0], int):
        return None, max(shape[0], 1)
    return None, 1


def _list_key(rows: list[Any]) -> Any:
    """Return the key of a list of rows: the same width, with the same types of cells.

    The types matter, because an array of 1 and 2.5 is one of floats: alone, 1 would be an integer.
    """
    if not rows:
        return None
    kind, first = type(rows[0]), rows[0]
    if kind is not list and kind is not tuple:
        return (list, kind) if all(type(row) is kind for row in rows) else None
    width, sorts = len(first), set(map(type, first))
    for row in rows[1:]:
        if type(row) is not kind or len(row) != width:
            return None
        sorts.update(map(type, row))
    return (list, kind, width, frozenset(sorts))


def joined(cases: list[Case]) -> Any:
    """Return the rows of cases with the same key as one table."""
    kind = cases[0].key[0]
    if kind is list:
        return [row for case in cases for row in case.data]
    tables = [case.data for case in cases]
    numpy = sys.modules["numpy"]
    if kind is numpy.ndarray:
        return numpy.concatenate(tables)
    return sys.modules["pandas"].concat(tables, ignore_index=True)


def parted(result: Any, rows: list[int]) -> Optional[list[Any]]:
    """Return each case's part of a result; None if it does not have one entry for each row."""
    numpy = sys.modules.get("numpy")
    array = numpy is not None and isinstance(result, numpy.ndarray) and result.ndim > 0
    if not (array or type(result) is list) or len(result) != sum(rows):
        return None
    parts, start = [], 0
    for count in rows:
        parts.append(result[start : start + count])
        start += count
    return parts


def same(alone: Any, part: Any) -> bool:
    """Return whether a result equals that of the same rows in a batch, except for the last bits of floats."""
    if type(alone) is not type(part):
        return False
    if type(alone) is list:
        return bool(alone == part)
    if alone.shape != part.shape or alone.dtype != part.dtype:
        return False
    if alone.dtype.kind in "fc":
        return bool(sys.modules["numpy"].allclose(alone, part, rtol=1e-4, atol=1e-7, equal_nan=True))
    return bool((alone == part).all())


def outline(value: Any) -> str:
    """Describe value in a few words."""
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple):
        return f"a {type(value).__name__} of shape {shape}"
    try:
        return f"a {type(value).__name__} of {len(value)}"
    except TypeError:
        return f"a {type(value).__name__}"
