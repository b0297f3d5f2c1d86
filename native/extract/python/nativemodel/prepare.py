"""Pipelines, and what is before a model in them: scalers, imputers, encoders, ColumnTransformer."""

from __future__ import annotations

import importlib
from typing import Any, Callable, NamedTuple, Optional

import numpy as np

from nativemodel.graph import Graph, Output, RefusedError

UNKNOWN = "(a text that training did not have)"


class Column(NamedTuple):
    """A column of a slot."""

    input: int = -1  # the column of slot 0 that it is made of, -1 for none or several
    raw: bool = False  # it has the values of that column; a text is its position in the column's categories
    missing: bool = True  # NaN may be in it
    # About the value of the input is factor * value + offset, unless factor is 0: to find the values at which an
    # answer changes.
    factor: float = 1.0
    offset: float = 0.0


class Table(NamedTuple):
    """A slot with its columns."""

    slot: int
    columns: tuple[Column, ...]
    sparse: bool = False


def name_of(model: Any) -> str:
    """Return the class of a model: the name of a class of scikit-learn, with its module for others."""
    kind = type(model)
    return kind.__name__ if kind.__module__.partition(".")[0] == "sklearn" else f"{kind.__module__}.{kind.__name__}"


def full_name(model: Any) -> str:
    return f"{type(model).__module__}.{type(model).__qualname__}"


def declare(model: Any, graph: Graph) -> Table:
    """Declare the columns of the input, if nothing has, and return it."""
    if not graph.columns:
        count = getattr(model, "n_features_in_", None)
        if not isinstance(count, int) or count < 1:
            raise RefusedError(f"a {name_of(model)} does not tell the number of its columns")
        graph.number_columns(count, getattr(model, "feature_names_in_", None))
    return Table(0, tuple(Column(number, raw=True) for number in range(len(graph.columns))))


def pipeline(model: Any, graph: Graph, slot: int) -> dict[str, Output]:
    """Steps, of which the last is the model."""
    from nativemodel.models import handle

    if slot:
        raise RefusedError("a Pipeline behind another transformer")
    table = declare(model, graph)
    _feed_tables(model, graph)
    steps = _steps(model)
    for step in steps[:-1]:
        table = transformed(step, graph, table)
    last = steps[-1]
    if full_name(last) in TRANSFORMERS:
        return _result(last, graph, transformed(last, graph, table))
    _refuse_texts(last, graph, table)
    if table.sparse and name_of(last).startswith("HistGradient"):
        raise RefusedError("a sparse matrix for histogram gradient boosting")
    if hasattr(last, "n_jobs"):
        last.n_jobs = 1
    outputs = _with_boundaries(graph, table, lambda: handle(last, graph, table.slot))
    if not graph.missing:
        graph.required.update(column.input for column in table.columns if column.missing)
        graph.missing = len(graph.required) < len(graph.columns)
    return outputs


def _with_boundaries(graph: Graph, table: Table, add: Callable[[], dict[str, Output]]) -> dict[str, Output]:
    """Add a model, and the values of the input at which its trees change their answer."""
    plain = graph.trees

    def trees(made: Any, *args: Any, **members: Any) -> int:
        if members["in"] == table.slot and table.slot:
            for feature, threshold in made.boundaries():
                column = table.columns[feature]
                if column.input >= 0 and column.factor:
                    graph.boundaries.append((column.input, column.factor * threshold + column.offset))
        return plain(made, *args, **members)

    graph.trees = trees  # type: ignore[method-assign]
    try:
        return add()
    finally:
        graph.trees = plain  # type: ignore[method-assign]


def _feed_tables(model: Any, graph: Graph) -> None:
    """Ask the library with tables, if it was fitted on one: their columns are found by name."""
    if getattr(model, "feature_names_in_", None) is None:
        return
    try:
        pandas = importlib.import_module("pandas")
    except ImportError:
        raise RefusedError("it was fitted on a table of pandas, which is not installed") from None

    def feed(rows: Any) -> Any:
        data = {}
        for number, column in enumerate(graph.columns):
            known, cells = column.get("categories"), rows[:, number]
            if known is not None:
                texts = [_text_of(cell, known) for cell in cells]
                cells = pandas.Series(texts, dtype=object)
            data[column["name"]] = cells
        return pandas.DataFrame(data)

    graph.feed = feed


def _text_of(code: float, known: list[str]) -> Any:
    if code != code:
        return np.nan
    return known[int(code)] if 0 <= code < len(known) else UNKNOWN


def _steps(model: Any) -> list[Any]:
    steps = [step for _, step in model.steps if step is not None and step != "passthrough"]
    if not steps:
        raise RefusedError("a Pipeline without steps")
    return steps


def transformer(model: Any, graph: Graph, slot: int) -> dict[str, Output]:
    """A transformer that is the whole model: its method is transform."""
    if slot:
        raise RefusedError(f"a {name_of(model)} behind another transformer")
    table = declare(model, graph)
    _feed_tables(model, graph)
    return _result(model, graph, transformed(model, graph, table))


def _result(model: Any, graph: Graph, made: Table) -> dict[str, Output]:
    _refuse_texts(model, graph, made)
    if made.sparse:
        raise RefusedError(f"a {name_of(model)} whose result is a sparse matrix")
    if any(column.raw for column in made.columns):
        raise RefusedError(f"a {name_of(model)} that passes columns, whose type is that of the request")
    return {"transform": Output(made.slot)}


def transformed(model: Any, graph: Graph, table: Table) -> Table:
    """Add a transformer."""
    if full_name(model) == "sklearn.pipeline.Pipeline":
        for step in _steps(model):
            table = transformed(step, graph, table)
        return table
    add = TRANSFORMERS.get(full_name(model))
    if add is None:
        raise RefusedError(f"a {name_of(model)} is computed in Python only")
    graph.infinite = graph.large = False
    return add(model, graph, table)


# Texts


def _is_text(graph: Graph, column: Column) -> bool:
    return column.raw and graph.columns[column.input].get("categories") is not None


def _refuse_texts(model: Any, graph: Graph, table: Table) -> None:
    if any(_is_text(graph, column) for column in table.columns):
        raise RefusedError(f"a {name_of(model)} cannot get texts")


def _code(graph: Graph, column: Column, text: str) -> float:
    if not column.raw:
        raise RefusedError("texts that an earlier step has made")
    described = graph.columns[column.input]
    if "name" not in described:
        raise RefusedError("a column of texts without a name")
    known = described.setdefault("categories", [])
    described["type"] = "text"
    if text not in known:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise RefusedError("a category is no valid text") from None
        known.append(text)
        graph.codes.setdefault(column.input, []).append(len(known) - 1.0)
    return float(known.index(text))


# Transformers


def _scaler(model: Any, graph: Graph, table: Table) -> Table:
    name = name_of(model)
    _refuse_texts(model, graph, table)
    if table.sparse:
        raise RefusedError(f"a {name} behind a sparse matrix, which computes otherwise")
    steps: list[tuple[str, Any]] = []
    clip = None
    if name == "StandardScaler":
        if model.with_mean:
            steps.append(("sub", model.mean_))
        if model.with_std:
            steps.append(("div", model.scale_))
    elif name == "MinMaxScaler":
        steps = [("mul", model.scale_), ("add", model.min_)]
        clip = [float(limit) for limit in model.feature_range] if getattr(model, "clip", False) else None
    elif name == "MaxAbsScaler":
        steps.append(("div", model.scale_))
        clip = [-1.0, 1.0] if getattr(model, "clip", False) else None
    else:
        if model.with_centering:
            steps.append(("sub", model.center_))
        if model.with_scaling:
            steps.append(("div", model.scale_))
    columns = []
    for number, column in enumerate(table.columns):
        factor, offset = column.factor, column.offset
        for op, values in reversed(steps):  # back to the value before the scaler
            value = float(values[number])
            if op == "sub":
                offset += factor * value
            elif op == "add":
                offset -= factor * value
            elif op == "div":
                factor *= value
            elif value:
                factor /= value
        if column.input >= 0 and factor:
            graph.boundaries += [(column.input, factor * value + offset) for value in (-2.0, 0.0, 2.0)]
        columns.append(Column(column.input, False, column.missing, factor, offset))
    made = [{"op": op, "values": graph.array(values, "f64")} for op, values in steps]
    return Table(graph.stage("scale", **{"in": table.slot, "steps": made, "clip": clip}), tuple(columns))


def _imputer(model: Any, graph: Graph, table: Table) -> Table:
    missing = model.missing_values
    if not (isinstance(missing, float) and missing != missing):
        raise RefusedError(f"a SimpleImputer of the missing value {missing!r}")
    if model.add_indicator:
        raise RefusedError("a SimpleImputer with an indicator")
    if table.sparse:
        raise RefusedError("a SimpleImputer behind a sparse matrix")
    values = []
    for column, value in zip(table.columns, model.statistics_.tolist()):
        if isinstance(value, str):
            values.append(_code(graph, column, value))
        elif type(value) in (bool, int, float) and value == value:
            if _is_text(graph, column):
                raise RefusedError("a SimpleImputer that replaces texts by numbers")
            values.append(float(value))
            if column.input >= 0 and column.factor:
                graph.boundaries.append((column.input, column.factor * values[-1] + column.offset))
        else:
            raise RefusedError("a SimpleImputer that drops a column, which had no value in training")
    slot = graph.stage("impute", **{"in": table.slot, "values": graph.array(values, "f64")})
    # Its result has the type of its input for texts only.
    return Table(slot, tuple(column._replace(missing=False, raw=_is_text(graph, column)) for column in table.columns))


def _categories(graph: Graph, column: Column, values: list[Any]) -> tuple[list[float], Optional[int]]:
    """Return the numbers of categories, and the position of the missing value."""
    found: list[float] = []
    missing = None
    for position, value in enumerate(values):
        if isinstance(value, str):
            found.append(_code(graph, column, value))
        elif type(value) in (bool, int, float) and value == value:
            found.append(float(value))
        elif type(value) is float and position == len(values) - 1:
            missing = position
            found.append(0.0)
        else:
            raise RefusedError(f"an encoder of the category {value!r}")
    texts = sum(isinstance(value, str) for value in values)
    if texts and texts != len(values) - (missing is not None):
        raise RefusedError("an encoder of texts and numbers in one column")
    if not texts and _is_text(graph, column):
        raise RefusedError("an encoder of numbers in a column of texts")
    if not texts and column.input >= 0 and column.factor:
        known = found[:-1] if missing is not None else found
        graph.codes.setdefault(column.input, []).extend(column.factor * value + column.offset for value in known)
    return found, missing


def _encoder(model: Any, graph: Graph, table: Table) -> Table:
    name = name_of(model)
    if table.sparse:
        raise RefusedError(f"an {name} behind a sparse matrix")
    if any(indices is not None for indices in getattr(model, "_infrequent_indices", ())):
        raise RefusedError(f"an {name} that puts rare categories together")
    onehot, refuse = name == "OneHotEncoder", model.handle_unknown == "error"
    if not onehot and np.dtype(model.dtype).kind != "f":
        raise RefusedError("an OrdinalEncoder of whole numbers")
    members: dict[str, Any] = {"in": table.slot, "columns": [], "refuse": refuse}
    if not onehot:
        members["unknown"] = None if refuse else _or_none(model.unknown_value)
        members["missing_as"] = _or_none(getattr(model, "encoded_missing_value", float("nan")))
    drops = getattr(model, "drop_idx_", None) if onehot else None
    columns: list[Column] = []
    for number, (column, values) in enumerate(zip(table.columns, model.categories_)):
        codes, missing = _categories(graph, column, values.tolist())
        made: dict[str, Any] = {"categories": graph.array(codes, "f64"), "missing": missing}
        width = len(codes)
        if drops is not None and drops[number] is not None:
            made["drop"] = int(drops[number])
            width -= 1
        members["columns"].append(made)
        if refuse and column.input >= 0:
            graph.unknown[column.input] = graph.codes.get(column.input, [0.0])[0]
            if missing is None and column.missing:
                graph.required.add(column.input)
        if onehot:
            columns += [Column(missing=False)] * width
        else:
            missing = None in (members["unknown"], members["missing_as"])
            columns.append(Column(column.input, False, missing, factor=0))
    if onehot:
        sparse = bool(getattr(model, "sparse_output", getattr(model, "sparse", True)))
        return Table(graph.stage("onehot", **members), tuple(columns), sparse)
    return Table(graph.stage("codes", **members), tuple(columns))


def _or_none(value: Any) -> Optional[float]:
    value = float(value)
    return value if value == value else None


def _column_transformer(model: Any, graph: Graph, table: Table) -> Table:
    if table.sparse:
        raise RefusedError("a ColumnTransformer behind a sparse matrix")
    parts: list[dict[str, Any]] = []
    columns: tuple[Column, ...] = ()
    for name, step, _ in model.transformers_:
        chosen = [int(index) for index in model._transformer_to_input_indices.get(name, ())]
        if not chosen or (isinstance(step, str) and step == "drop"):
            continue
        picked = tuple(table.columns[index] for index in chosen)
        part: dict[str, Any] = {"in": table.slot, "pick": chosen}
        if isinstance(step, str) or (name_of(step) == "FunctionTransformer" and step.func is None):
            parts.append(part)
            columns += picked
            continue
        made = transformed(step, graph, Table(graph.stage("join", parts=[part]), picked))
        parts.append({"in": made.slot})
        columns += made.columns
    if not parts:
        raise RefusedError("a ColumnTransformer without columns")
    return Table(graph.stage("join", parts=parts), columns, bool(getattr(model, "sparse_output_", False)))


TRANSFORMERS: dict[str, Callable[[Any, Graph, Table], Table]] = {
    "sklearn.preprocessing._data.StandardScaler": _scaler,
    "sklearn.preprocessing._data.MinMaxScaler": _scaler,
    "sklearn.preprocessing._data.MaxAbsScaler": _scaler,
    "sklearn.preprocessing._data.RobustScaler": _scaler,
    "sklearn.impute._base.SimpleImputer": _imputer,
    "sklearn.preprocessing._encoders.OneHotEncoder": _encoder,
    "sklearn.preprocessing._encoders.OrdinalEncoder": _encoder,
    "sklearn.compose._column_transformer.ColumnTransformer": _column_transformer,
}
HANDLERS = {**dict.fromkeys(TRANSFORMERS, transformer), "sklearn.pipeline.Pipeline": pipeline}
