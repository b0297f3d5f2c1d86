"""Boosted trees and isolation forests of scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np

from nativemodel.forests import INFINITE, add_tree, refuse_nan
from nativemodel.graph import (
    CATEGORICAL,
    NAN_LEFT,
    NAN_RIGHT,
    SET_GOES_LEFT,
    UNKNOWN_LEFT,
    Graph,
    Output,
    RefusedError,
    Trees,
)


def gradient_boosting(model: Any, graph: Graph, slot: int) -> dict[str, Output]:
    """GradientBoostingClassifier and GradientBoostingRegressor."""
    graph.number_columns(model.n_features_in_, getattr(model, "feature_names_in_", None), "float32")
    graph.infinite = False
    init = model.init_
    if not isinstance(init, str):
        name = type(init).__name__
        if name not in ("DummyClassifier", "DummyRegressor") or getattr(init, "strategy", "") in (
            "stratified",
            "uniform",
        ):
            raise RefusedError(f"its initial estimator, a {name}, has another answer for each row")
    begin = np.asarray(
        model._raw_predict_init(np.zeros((1, model.n_features_in_), dtype=np.float32)), dtype=np.float64
    )[0]
    trees = Trees()
    for stage in model.estimators_:
        for group, estimator in enumerate(stage):
            tree = estimator.tree_
            # The library multiplies each leaf when it adds it, with the same rounding.
            add_tree(trees, tree, tree.value[:, 0, :] * np.float64(model.learning_rate), group)
    raw = graph.trees(
        trees,
        **{"in": slot},
        float32=True,
        finite=INFINITE,
        not_nan=refuse_nan(f"a {type(model).__name__}", graph),
        outputs=len(begin),
        init=graph.array(begin, "f64"),
        group=graph.array(trees.groups, "u32"),
    )
    classes = getattr(model, "classes_", None)
    if classes is None:
        return {"predict": Output(raw, flat=True)}
    rule = "not_negative" if len(begin) == 1 else "argmax"
    factors = {"log_loss": 1.0, "deviance": 1.0, "exponential": 2.0}
    if model.loss not in factors:
        raise RefusedError(f"its loss {model.loss!r} is not known")
    return _classifier(graph, raw, len(begin), rule, classes, factors[model.loss], fortran=False)


def _classifier(
    graph: Graph, raw: int, outputs: int, rule: str, classes: Any, factor: float, fortran: bool
) -> dict[str, Output]:
    label = graph.stage("label", **{"in": raw}, rule=rule)
    if outputs == 1:
        proba = graph.stage("link", **{"in": raw}, function="expit2", a=factor)
    else:
        proba = graph.stage("link", **{"in": raw}, function="softmax", fortran=fortran)
    return {
        "predict": Output(label, "label", True, list(classes)),
        "predict_proba": Output(proba),
        "decision_function": Output(raw, flat=outputs == 1),
    }


def histogram_boosting(model: Any, graph: Graph, slot: int) -> dict[str, Output]:
    """HistGradientBoostingClassifier and HistGradientBoostingRegressor."""
    source, known = list(range(model.n_features_in_)), {}
    if getattr(model, "is_categorical_", None) is not None:
        slot, source = _ordinal(model, graph, slot)
        bitsets, index = model._bin_mapper.make_known_categories_bitsets()
        remapped = np.flatnonzero(model._is_categorical_remapped)
        known = {int(feature): bitsets[index[feature]] for feature in remapped}
    else:
        graph.number_columns(model.n_features_in_, getattr(model, "feature_names_in_", None))
    trees = Trees()
    for stage in model._predictors:
        for group, predictor in enumerate(stage):
            _add_predictor(trees, predictor, known, group)
    begin = np.asarray(model._baseline_prediction, dtype=np.float64).ravel()
    raw = graph.trees(
        trees,
        source,
        **{"in": slot},
        outputs=len(begin),
        init=graph.array(begin, "f64"),
        group=graph.array(trees.groups, "u32"),
    )
    classes = getattr(model, "classes_", None)
    if classes is not None:
        rule = "positive" if len(begin) == 1 else "argmax"
        return _classifier(graph, raw, len(begin), rule, classes, 1.0, fortran=True)
    link = type(model._loss.link).__name__
    if link == "LogLink":
        raw = graph.stage("link", **{"in": raw}, function="exp")
    elif link != "IdentityLink":
        raise RefusedError(f"its link {link} is not known")
    return {"predict": Output(raw, flat=True)}


def _add_predictor(trees: Trees, predictor: Any, known: dict[int, Any], group: int) -> None:
    nodes = predictor.nodes
    leaf = nodes["is_leaf"].astype(bool)
    rows = np.cumsum(leaf) - 1
    threshold = nodes["num_threshold"].astype(np.float64)
    missing_left = nodes["missing_go_to_left"].astype(bool)
    mode = np.where(missing_left, NAN_LEFT, NAN_RIGHT)
    for node in np.flatnonzero(nodes["is_categorical"].astype(bool) & ~leaf):
        words = np.array(predictor.raw_left_cat_bitsets[nodes["bitset_idx"][node]], dtype=np.uint32)
        mode[node] |= CATEGORICAL | SET_GOES_LEFT
        if missing_left[node]:  # categories that were not seen go where missing values go
            words |= ~np.asarray(known[int(nodes["feature_idx"][node])], dtype=np.uint32)
            mode[node] |= UNKNOWN_LEFT
        threshold[node] = trees.set(words)
    trees.add(
        np.where(leaf, -1, nodes["feature_idx"]),
        threshold,
        np.where(leaf, rows, nodes["left"]),
        nodes["right"],
        mode,
        nodes["value"][leaf],
        group,
    )


def _ordinal(model: Any, graph: Graph, slot: int) -> tuple[int, list[int]]:
    """Add the stage that the model has in itself: categories become their positions, and come first."""
    mask = np.asarray(model.is_categorical_, dtype=bool)
    order = [*np.flatnonzero(mask).tolist(), *np.flatnonzero(~mask).tolist()]
    lists = model._preprocessor.named_transformers_["encoder"].categories_
    names = getattr(model, "feature_names_in_", None)
    columns: list[dict[str, Any]] = [{"type": "float64", "optional": True} for _ in order]
    tables: list[Any] = []
    texts = False
    for column, categories in zip(order, lists):
        present = [c for c in categories.tolist() if c is not None and c == c]
        if categories.dtype.kind in "biuf":
            tables.append(graph.array(np.asarray(present, dtype=np.float64), "f64"))
            graph.codes[column] = [float(c) for c in present]
            graph.unknown[column] = max(graph.codes[column], default=0.0) + 1
        elif all(isinstance(c, str) for c in present):
            columns[column] = {"type": "text", "categories": present, "optional": True}
            tables.append(graph.array(np.arange(len(present)), "f64"))
            graph.codes[column] = [float(i) for i in range(len(present))]
            texts = True
        else:
            raise RefusedError(f"the categories of column {column} are neither numbers nor texts")
    if names is not None:
        for column, name in zip(columns, names):
            column["name"] = str(name)
    if graph.columns:
        raise RefusedError("a HistGradientBoosting model with categories inside of a pipeline")
    graph.columns = columns
    if texts:
        graph.feed = Frame(columns)
    return graph.stage("ordinal", **{"in": slot}, columns=order, tables=tables), order


class Frame:
    """Makes tables of rows in the form of slot 0."""

    def __init__(self, columns: list[dict[str, Any]]) -> None:
        self.columns = columns

    def __call__(self, rows: Any) -> Any:
        import pandas

        made = {}
        for i, column in enumerate(self.columns):
            values = rows[:, i]
            if "categories" in column:
                texts = [
                    np.nan if v != v else column["categories"][int(v)] if v >= 0 else "unknown\0category"
                    for v in values
                ]
                values = np.array([*texts, None], dtype=object)[:-1]
            made[column.get("name", i)] = values
        return pandas.DataFrame(made)


def isolation_forest(model: Any, graph: Graph, slot: int) -> dict[str, Output]:
    """IsolationForest."""
    from sklearn.ensemble._iforest import _average_path_length

    graph.number_columns(model.n_features_in_, getattr(model, "feature_names_in_", None), "float32")
    divisor = float(len(model.estimators_) * _average_path_length([model._max_samples])[0])
    if divisor == 0:
        raise RefusedError("its trees have one row each")
    subsampled = model._max_features != model.n_features_in_
    trees = Trees()
    for i, (estimator, features) in enumerate(zip(model.estimators_, model.estimators_features_)):
        values = model._decision_path_lengths[i] + model._average_path_length_per_tree[i] - 1.0
        add_tree(trees, estimator.tree_, values[:, None], features=features if subsampled else None)
    members: dict[str, Any] = {}
    if not _accepts(model, np.nan):
        members["not_nan"] = refuse_nan("an IsolationForest of this release", graph)
    if not _accepts(model, np.inf):
        members["finite"] = INFINITE
        graph.infinite = False
    depths = graph.trees(trees, **{"in": slot}, float32=True, outputs=1, init=graph.array([0.0], "f64"), **members)
    scores = graph.stage("link", **{"in": depths}, function="isolation", a=divisor)
    decision = graph.stage("link", **{"in": scores}, function="minus", a=float(model.offset_))
    label = graph.stage("label", **{"in": decision}, rule="not_negative")
    return {
        "predict": Output(label, "label", True, [-1, 1]),
        "score_samples": Output(scores, flat=True),
        "decision_function": Output(decision, flat=True),
    }


def _accepts(model: Any, value: float) -> bool:
    try:
        model.score_samples(np.full((1, model.n_features_in_), value))
    except ValueError:
        return False
    return True


HANDLERS = {
    "sklearn.ensemble._gb.GradientBoostingClassifier": gradient_boosting,
    "sklearn.ensemble._gb.GradientBoostingRegressor": gradient_boosting,
    "sklearn.ensemble._hist_gradient_boosting.gradient_boosting.HistGradientBoostingClassifier": histogram_boosting,
    "sklearn.ensemble._hist_gradient_boosting.gradient_boosting.HistGradientBoostingRegressor": histogram_boosting,
    "sklearn.ensemble._iforest.IsolationForest": isolation_forest,
}
