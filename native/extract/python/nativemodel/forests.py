"""Decision trees and forests of scikit-learn: RandomForest, ExtraTrees, DecisionTree, ExtraTree."""

from __future__ import annotations

from typing import Any

import numpy as np

from nativemodel.graph import NAN_LEFT, NAN_RIGHT, Graph, Output, RefusedError, Trees

INFINITE = "infinity or a value too large for float32, which scikit-learn refuses"


def add_tree(trees: Trees, tree: Any, values: Any, group: int = 0, features: Any = None) -> None:
    """Add a fitted sklearn.tree._tree.Tree with one row of `values` per node."""
    if tree.n_outputs != 1:
        raise RefusedError("it has several outputs")
    leaf = tree.children_left < 0
    feature = np.where(leaf, 0, tree.feature)
    if features is not None:
        feature = np.asarray(features)[feature]
    rows = np.cumsum(leaf) - 1
    missing = getattr(tree, "missing_go_to_left", None)
    mode = np.where(missing, NAN_LEFT, NAN_RIGHT) if missing is not None else np.full(len(leaf), NAN_RIGHT)
    trees.add(
        np.where(leaf, -1, feature),
        tree.threshold,
        np.where(leaf, rows, tree.children_left),
        tree.children_right,
        mode,
        np.asarray(values)[leaf],
        group,
    )


def allows_missing(estimator: Any) -> bool:
    """Tell whether the fitted tree accepts NaN, as its own validation does."""
    support = getattr(estimator, "_support_missing_values", None)
    return bool(support is not None and support(np.zeros((1, 1))))


def refuse_nan(name: str, graph: Graph) -> str:
    graph.missing = False
    return f"NaN, which {name} does not accept"


def forest(model: Any, graph: Graph, slot: int) -> dict[str, Output]:
    """Trees whose answers are averaged."""
    estimators = model.estimators_
    _one_output(model)
    members = _members(model, estimators[0], graph)
    trees = Trees()
    classes = getattr(model, "classes_", None)
    for estimator in estimators:
        tree = estimator.tree_
        add_tree(trees, tree, _values(tree, classes))
    outputs = 1 if classes is None else len(classes)
    graph.notes.append("equal to the library with n_jobs=1; with several jobs it adds up trees in changing order")
    summed = graph.trees(
        trees,
        **{"in": slot},
        outputs=outputs,
        init=graph.array(np.zeros(outputs), "f64"),
        divide=float(len(estimators)),
        **members,
    )
    return _answers(graph, summed, classes)


def tree(model: Any, graph: Graph, slot: int) -> dict[str, Output]:
    """A single tree."""
    _one_output(model)
    members = _members(model, model, graph)
    classes = getattr(model, "classes_", None)
    trees = Trees()
    add_tree(trees, model.tree_, _values(model.tree_, classes))
    outputs = 1 if classes is None else len(classes)
    summed = graph.trees(
        trees, **{"in": slot}, outputs=outputs, init=graph.array(np.full(outputs, -0.0), "f64"), **members
    )
    return _answers(graph, summed, classes)


def _one_output(model: Any) -> None:
    if getattr(model, "n_outputs_", 1) != 1:
        raise RefusedError("it has several outputs")
    if (
        getattr(model, "monotonic_cst", None) is not None
        and not hasattr(model, "tree_")
        and not hasattr(model, "estimators_")
    ):
        raise RefusedError("it is not fitted")


def _members(model: Any, estimator: Any, graph: Graph) -> dict[str, Any]:
    graph.number_columns(model.n_features_in_, getattr(model, "feature_names_in_", None), "float32")
    graph.infinite = False
    members: dict[str, Any] = {"float32": True, "finite": INFINITE}
    if not allows_missing(estimator):
        members["not_nan"] = refuse_nan(f"a {type(model).__name__} of this kind", graph)
    return members


def _values(tree: Any, classes: Any) -> Any:
    """The answer of each node. Trees of scikit-learn before 1.3 hold counts, which predict_proba divides."""
    values = tree.value[:, 0, :]
    if classes is None:
        return values
    if not hasattr(tree, "missing_go_to_left") or not np.allclose(values.sum(axis=1), 1):
        total = values.sum(axis=1)[:, np.newaxis]
        total[total == 0.0] = 1.0
        values = values / total
    return values


def _answers(graph: Graph, slot: int, classes: Any) -> dict[str, Output]:
    if classes is None:
        return {"predict": Output(slot, flat=True)}
    return {
        "predict": Output(graph.stage("label", **{"in": slot}, rule="argmax"), "label", True, list(classes)),
        "predict_proba": Output(slot),
    }


HANDLERS = {
    "sklearn.ensemble._forest.RandomForestClassifier": forest,
    "sklearn.ensemble._forest.RandomForestRegressor": forest,
    "sklearn.ensemble._forest.ExtraTreesClassifier": forest,
    "sklearn.ensemble._forest.ExtraTreesRegressor": forest,
    "sklearn.tree._classes.DecisionTreeClassifier": tree,
    "sklearn.tree._classes.DecisionTreeRegressor": tree,
    "sklearn.tree._classes.ExtraTreeClassifier": tree,
    "sklearn.tree._classes.ExtraTreeRegressor": tree,
}
