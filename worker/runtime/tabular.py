"""Makes a table of JSON records for a model that knows the names of its columns.

Owns which columns a model has, which of them hold categories, and the errors of records that do not fit. It serves
endpoints of the model engines without a preprocess method. Lists of rows pass as they are, unless the model selects
its columns by their names.
"""

from __future__ import annotations

import difflib
import importlib
import json
import re
import sys
from typing import Any, Callable, NamedTuple, Optional

from tensorinput import column, frame, sized, texts
from tensors import ELEMENTS, InputError, Tensors

Step = Callable[[Any, Any, Any], Any]
SHOWN = 10  # names in a message
NUMBERS = frozenset({type(None), bool, int, float})
NAN = float("nan")
DAMAGED = "damaged"  # in place of categories
# What NumPy and scikit-learn say of values that they cannot compute with, as of a number in a column of texts.
OF_VALUES = re.compile(r"ufunc '|not supported between instances|must be a string or a real number|must be real number")
NESTED = 100  # an object may answer to any name, and so be its own first step
# XGBoost's numbers for the types of categories in a saved model.
XGBOOST_KINDS = {9: "int8", 10: "uint8", 11: "int16", 13: "int32", 15: "int64"}


class Columns(NamedTuple):
    """The columns of a model's training data."""

    names: tuple[str, ...]
    categories: dict[str, Any]  # of the columns that have them: the values in training
    strict: bool = False  # a value that training did not have is an error, not a missing value
    numeric: bool = False  # the other columns are numbers
    refusal: str = ""  # why records cannot be converted
    by_name: bool = False  # the model selects columns by their names, so that it takes only a table
    none: frozenset[str] = frozenset()  # the columns in which a missing value is None, not NaN


def step_for(columns: Optional[Columns], plain: Step) -> Step:
    """Return the preprocess step for a model: records become a table, anything else is passed to `plain`."""
    if columns is None:
        return plain
    table = _table_with(columns)
    known = frozenset(columns.names)

    def step(body: Any, state: Any, collect: Any) -> Any:
        if type(body) is dict:
            records = [body]
        elif type(body) is list and body and type(body[0]) is dict:
            records = body
        elif columns.by_name and type(body) is list and body and type(body[0]) is list:
            return table(_columns_of_rows(body, columns.names))
        else:
            return plain(body, state, collect)
        if columns.refusal:
            raise ValueError(columns.refusal)
        for number, record in enumerate(records, 1):
            if type(record) is not dict or record.keys() != known:
                raise ValueError(_misfit(record, columns.names, number, len(records)))
        return table({name: [record[name] for record in records] for name in columns.names})

    return step


def take_for(columns: Optional[Columns], engine: str) -> Callable[[Tensors], Any]:
    """Return what makes the model's input of tensors: rows of one tensor, or a table of named columns."""
    table = None if columns is None else _table_with(columns)

    def take(got: Tensors) -> Any:
        if not _is_table(got, columns):
            rows = _rows_of(got, columns, engine)
            if columns is None or table is None or not columns.by_name or getattr(rows, "ndim", 0) != 2:
                return rows
            cells = rows if rows.dtype.kind != "O" else rows.tolist()
            return table(
                _columns_of_rows(cells, columns.names) if type(cells) is list else dict(zip(columns.names, cells.T))
            )
        if columns is None or table is None:  # the client says that it is a table
            return frame(got)
        if columns.refusal:
            raise InputError(columns.refusal)
        inputs = {tensor.name: tensor for tensor in got.list}
        if inputs.keys() != set(columns.names):
            raise InputError(_misfit(inputs, columns.names, 1, 1, "the request"))
        cells = {name: column(inputs[name]) for name in columns.names}
        if len({len(values) for values in cells.values()}) > 1:
            raise InputError(f"the columns have different numbers of rows: {sized(cells)}")
        try:
            return table(cells)
        except ValueError as error:
            raise InputError(str(error)) from None

    return take


def _is_table(got: Tensors, columns: Optional[Columns]) -> bool:
    """Return whether each tensor is a column: more than one, or one with a column's name and form."""
    if got.whole == "pd" or len(got.list) != 1:
        return got.whole == "pd" or columns is not None
    only = got.list[0]
    return columns is not None and only.name in columns.names and (len(only.shape) == 1 or only.shape[1:] == [1])


def _rows_of(got: Tensors, columns: Optional[Columns], engine: str) -> Any:
    """Return the rows of the only tensor."""
    if len(got.list) != 1:
        raise InputError(
            f"the {engine} model takes one tensor of rows, [n, m], and the request has {len(got.list)}; it was trained "
            "without names of columns: with the request's content_type pd it gets a table with the names of the request"
        )
    only = got.list[0]
    whole = columns is not None and len(only.shape) == 2 and only.shape[1] > 1  # a table, and no list of texts
    if only.dtype == ELEMENTS and not whole and (only.content_type == "str" or len(only.shape) == 1):
        return texts(only)
    if columns is not None and columns.refusal == "" and len(only.shape) == 2 and only.shape[1] != len(columns.names):
        raise InputError(
            f"the input {only.name!r} has the shape {only.shape}, and the model has {len(columns.names)} columns: "
            f"{_listed(columns.names)}"
        )
    if only.dtype != ELEMENTS:
        return only.array
    array = only.array
    for at, cell in enumerate(texts(only)):
        array.reshape(-1)[at] = cell
    return array


def columns_of(model: Any) -> Optional[Columns]:
    """Return the columns of the model's training data, or None if it does not know their names."""
    try:
        source = first_step(model)
        columns = _xgboost(source) or _lightgbm(source) or _sklearn(model)
    except Exception:  # of a foreign class: such a model takes rows, as without names
        return None
    return columns if columns and len(set(columns.names)) == len(columns.names) else None


def first_step(model: Any) -> Any:
    """Return the part of a scikit-learn model that gets the table: the first step, the best estimator."""
    for _ in range(NESTED):
        steps = getattr(model, "steps", None)
        if isinstance(steps, list) and steps:
            model = next((step for _, step in steps if step is not None and step != "passthrough"), None)
        elif hasattr(model, "best_estimator_"):
            model = model.best_estimator_
        else:
            break
    return model


def last_step(model: Any) -> Any:
    """Return the part of a scikit-learn model that predicts."""
    for _ in range(NESTED):
        steps = getattr(model, "steps", None)
        if isinstance(steps, list) and steps:
            model = steps[-1][1]
        elif hasattr(model, "best_estimator_"):
            model = model.best_estimator_
        elif hasattr(model, "regressor_"):
            model = model.regressor_
        else:
            break
    return model


def _sklearn(model: Any) -> Optional[Columns]:
    names = getattr(model, "feature_names_in_", None)
    return None if names is None else Columns(tuple(map(str, names)), {}, by_name=_selects_by_name(first_step(model)))


def _selects_by_name(step: Any) -> bool:
    """Return whether it is a ColumnTransformer whose columns are names, or a selector that needs a table."""
    if type(step).__name__ != "ColumnTransformer":
        return False
    chosen = [columns for _, _, columns in step.transformers]
    return any(
        callable(one)
        or isinstance(one, str)
        or (isinstance(one, (list, tuple)) and any(isinstance(c, str) for c in one))
        for one in chosen
    )


def _xgboost(model: Any) -> Optional[Columns]:
    xgboost = sys.modules.get("xgboost")
    if xgboost is None or not isinstance(model, (xgboost.Booster, getattr(xgboost, "XGBModel", xgboost.Booster))):
        return None
    booster = model if isinstance(model, xgboost.Booster) else model.get_booster()
    if not booster.feature_names:
        return None
    names = tuple(booster.feature_names)
    marked = [name for name, kind in zip(names, booster.feature_types or ()) if kind == "c"]
    if not marked:
        return Columns(names, {}, numeric=True)
    if not hasattr(booster, "get_categories") or booster.get_categories().empty():
        return Columns(names, {}, refusal=_without_categories(marked, "save it again with XGBoost 3.1 or newer"))
    trained = dict(zip(names, _xgboost_categories(booster)))
    damaged = [name for name in marked if trained.get(name) is DAMAGED]
    if damaged:
        return Columns(names, {}, refusal=_without_categories(damaged, "train it with ASCII letters", damaged=True))
    if any(trained.get(name) is None for name in marked):
        return Columns(names, {}, refusal=_without_categories(marked, "this version of XGBoost stores them otherwise"))
    # XGBoost gives a value that it does not know the code of another one.
    return Columns(names, {name: trained[name] for name in marked}, strict=True, numeric=True)


def _xgboost_categories(booster: Any) -> list[Any]:
    """Return the categories of each column as the model stores them: a list, an array, or None.

    The library's own way to read them needs pyarrow.
    """
    raw = booster.save_raw("json")
    at = raw.find(b'"cats":{')
    if at < 0:
        return []
    at += len(b'"cats":')
    end = raw.find(b"}]", at)  # of the list of columns: values are lists of numbers
    columns = json.loads(raw[at : end + 2] + b"}")["enc"]
    numpy = importlib.import_module("numpy")
    found: list[Any] = []
    for each in columns:
        values, offsets, kind = each.get("values"), each.get("offsets"), XGBOOST_KINDS.get(each.get("type"))
        if offsets and values:
            text = bytes(value % 256 for value in values)
            # For columns of pandas XGBoost counts letters where it has to count bytes, and loses the rest.
            parts = zip(offsets, offsets[1:]) if text.isascii() else ()
            found.append([text[start:stop].decode() for start, stop in parts] or DAMAGED)
        else:
            found.append(numpy.array(values, kind) if kind and values else None)
    return found


def _lightgbm(model: Any) -> Optional[Columns]:
    lightgbm = sys.modules.get("lightgbm")
    if lightgbm is None or not isinstance(model, (lightgbm.Booster, getattr(lightgbm, "LGBMModel", lightgbm.Booster))):
        return None
    booster = model if isinstance(model, lightgbm.Booster) else model.booster_
    names = tuple(booster.feature_name())
    if names == tuple(f"Column_{number}" for number in range(len(names))):
        return None  # LightGBM's own names, of training data without names
    trained = booster.pandas_categorical
    if not trained:
        return Columns(names, {}, numeric=True)
    infos = booster.dump_model(num_iteration=1)["feature_infos"]
    marked = [name for name in names if infos.get(name, {}).get("values")]
    if len(marked) != len(trained):
        refusal = f"the model has categories of {len(trained)} columns, and {len(marked)} columns with categories"
        return Columns(names, {}, refusal=refusal + "; send rows without names, with numbers for the categories")
    return Columns(names, dict(zip(marked, trained)), numeric=True)


def _without_categories(marked: list[str], cure: str, damaged: bool = False) -> str:
    what = "has a damaged list of" if damaged else "does not store"
    return (
        f"the model {what} the categories of its columns {_listed(marked)}, so values with names cannot be "
        f"converted to its numbers; {cure}, or send rows without names, with the numbers of training"
    )


# Tables


def _table_with(columns: Columns) -> Callable[[dict[str, Any]], Any]:
    try:
        pandas = importlib.import_module("pandas")
    except ImportError:
        return _rows_with(columns)
    known = {name: frozenset(values) for name, values in columns.categories.items()}

    def table(held: dict[str, Any]) -> Any:
        """Make it of the cells of each column: a list, or an array of numbers."""
        data: dict[str, Any] = {}
        for name in columns.names:
            cells = held[name]
            if name not in known:
                data[name] = _column(pandas, cells, columns.numeric, name in columns.none)
                continue
            seen = known[name]
            if not isinstance(cells, list):  # NaN is a missing value
                cells = [None if cell != cell else cell for cell in cells.tolist()]
            try:
                kept = [cell if cell in seen else None for cell in cells]
            except TypeError as error:  # a list or an object
                raise ValueError(f"the column {name!r} holds categories: {error}") from None
            if columns.strict and kept != cells:
                raise ValueError(_unseen(name, cells, kept, columns.categories[name]))
            data[name] = pandas.Categorical(kept, columns.categories[name])
        return pandas.DataFrame(data)

    return table


def _columns_of_rows(rows: list[Any], names: tuple[str, ...]) -> dict[str, list[Any]]:
    for number, row in enumerate(rows, 1):
        if type(row) is not list or len(row) != len(names):
            what = f"has {len(row)} values" if type(row) is list else f"is of type {type(row).__name__}"
            where = f"row {number} of {len(rows)}" if len(rows) > 1 else "the row"
            raise ValueError(f"{where} {what}, and the model has {len(names)} columns: {_listed(names)}")
    return {name: [row[at] for row in rows] for at, name in enumerate(names)}


def _column(pandas: Any, cells: Any, numeric: bool, none: bool) -> Any:
    """Return the column with the type that pandas infers, in which null is NaN, or None if training had that. An
    array keeps its type.
    """
    if not isinstance(cells, list):
        return cells
    if none:
        return pandas.Series(cells, dtype=object)
    if numeric and all(type(cell) in NUMBERS for cell in cells):
        return pandas.Series(cells, dtype=float if None in cells else None)
    if cells.count(None) == len(cells):
        # Encoders of scikit-learn refuse floats where training had text; all of it accepts NaN in an object column.
        return pandas.Series([NAN] * len(cells), dtype=object)
    column = pandas.Series(cells)
    return column.where(column.notna(), NAN) if column.dtype == object else column


def _rows_with(columns: Columns) -> Callable[[dict[str, Any]], Any]:
    def rows(held: dict[str, Any]) -> Any:
        if columns.categories:
            raise ValueError(f"records for the categories of {_listed(columns.categories)} need pandas in the worker")
        cells = [values if isinstance(values, list) else values.tolist() for values in (held[n] for n in columns.names)]
        return [list(row) for row in zip(*cells)]

    return rows


# Errors


def explained(predict: Step) -> Step:
    """Return the model's step for input that no user code has made: what the model cannot compute with because of
    its type is the client's error.
    """

    def step(data: Any, state: Any, collect: Any) -> Any:
        try:
            return predict(data, state, collect)
        except (TypeError, ValueError) as error:
            fault = _nested(data)
            if not fault and isinstance(error, TypeError) and OF_VALUES.search(str(error)):
                fault = f"a value has another type than in training: {error}"
            if not fault:
                raise
            raise ValueError(fault) from error

    return step


def _nested(data: Any) -> str:
    """Return what is wrong if a cell of a table or of rows holds a list or an object, else ""."""
    if isinstance(data, list):
        for number, row in enumerate(data, 1):
            for at, cell in enumerate(row if isinstance(row, list) else [row], 1):
                if isinstance(cell, dict):
                    return f"row {number} has a JSON object as value {at}: values are numbers or texts"
    elif hasattr(data, "columns") and hasattr(data, "dtypes"):
        for name, kind in data.dtypes.items():
            for number, cell in enumerate(data[name] if getattr(kind, "kind", "") == "O" else (), 1):
                if isinstance(cell, (dict, list)):
                    what = "JSON object" if isinstance(cell, dict) else "list"
                    where = f"record {number} of {len(data)}" if len(data) > 1 else "the record"
                    return f"{where} has a {what} in the column {name!r}: values are numbers or texts"
    return ""


def _misfit(record: Any, names: tuple[str, ...], number: int, count: int, where: str = "") -> str:
    where = where or (f"record {number} of {count}" if count > 1 else "the record")
    if type(record) is not dict:
        return f"{where} is of type {type(record).__name__}: all records have to be JSON objects"
    known = set(names)
    missing = [name for name in names if name not in record]
    extra = [name for name in record if name not in known]
    faults = []
    if missing:
        faults.append(f"has no {_listed(missing)}")
    if extra:
        shown = []
        for name in extra[:SHOWN]:
            near = difflib.get_close_matches(name[:200], missing or names, 1)
            shown.append(repr(name[:200]) + (f" (did you mean {near[0]!r}?)" if near else ""))
        faults.append(f"has {', '.join(shown)}{_more(extra)}, which the model does not know")
    return f"{where} {' and '.join(faults)}; the model's columns are {_listed(names)}"


def _unseen(name: str, cells: list[Any], held: list[Any], trained: Any) -> str:
    number, cell = next((n, cell) for n, (cell, kept) in enumerate(zip(cells, held), 1) if cell is not kept)
    where = f"record {number} of {len(cells)}" if len(cells) > 1 else "the record"
    values = [value if isinstance(value, str) else int(value) for value in trained]
    near = difflib.get_close_matches(cell[:200], values, 1) if isinstance(cell, str) and cell not in values else []
    hint = f" (did you mean {near[0]!r}?)" if near and isinstance(near[0], str) else ""
    return (
        f"{where} has {str(cell)[:200]!r}{hint} in the column {name!r}, which training did not have; its categories "
        f"are {_listed(values)}, and null is a missing value"
    )


def _listed(names: Any) -> str:
    names = list(names)
    return ", ".join(repr(name) for name in names[:SHOWN]) + _more(names)


def _more(names: list[str]) -> str:
    return f", ... ({len(names) - SHOWN} more)" if len(names) > SHOWN else ""
