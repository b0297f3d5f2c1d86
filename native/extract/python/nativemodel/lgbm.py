"""Models of LightGBM: boosters, and the classes of its scikit-learn interface."""

from __future__ import annotations

import contextlib
from typing import Any, Optional

import numpy as np

from nativemodel.graph import (
    CATEGORICAL,
    NAN_LEFT,
    NAN_RIGHT,
    NAN_ZERO,
    SET_GOES_LEFT,
    ZERO_LEFT,
    ZERO_RIGHT,
    Graph,
    Output,
    RefusedError,
    Trees,
)

ZERO = 1.0000000180025095e-35
PLAIN = ("regression", "regression_l1", "huber", "fair", "quantile", "mape", "lambdarank", "rank_xendcg", "custom", "")
EXPONENTIAL = ("poisson", "gamma", "tweedie")
MISSING = {0: (NAN_ZERO, NAN_ZERO), 1: (ZERO_RIGHT, ZERO_LEFT), 2: (NAN_RIGHT, NAN_LEFT)}


class Booster:
    """What a booster's own text says."""

    def __init__(self, text: str) -> None:
        head, _, rest = text.partition("\nTree=")
        self.head = dict(line.partition("=")[::2] for line in head.splitlines())
        trees, _, tail = rest.partition("\nend of trees")
        self.trees = [
            dict(line.partition("=")[::2] for line in tree.splitlines()[1:] if line)
            for tree in (trees.split("\nTree=") if trees else [])
        ]
        if "[pred_early_stop: 1]" in tail:
            raise RefusedError("it stops its predictions early")
        self.groups = int(self.head["num_tree_per_iteration"])
        self.average = "average_output" in self.head  # boosting=rf
        self.features = int(self.head["max_feature_idx"]) + 1
        self.names = self.head["feature_names"].split(" ")
        self.infos = self.head.get("feature_infos", "").split(" ")
        words = self.head.get("objective", "").split(" ")
        self.objective = words[0]
        self.options = dict(word.partition(":")[::2] for word in words[1:])

    def columns(self, graph: Graph, pandas_categories: Optional[list[Any]], slot: int) -> None:
        own = not graph.columns
        if own:
            graph.columns = [{"type": "float64", "name": name, "optional": True} for name in self.names]
        categorical = [i for i, info in enumerate(self.infos) if info[:1] not in ("[", "n", "")]
        for column in categorical if slot == 0 else ():
            codes = sorted(float(code) for code in self.infos[column].split(":") if float(code) >= 0)
            graph.codes[column] = codes
            graph.unknown[column] = max(codes, default=0.0) + 7
        if not pandas_categories or not own:
            return
        unused = [i for i, info in enumerate(self.infos) if info == "none"]
        if len(categorical) != len(pandas_categories):
            if len(categorical) + len(unused) != len(pandas_categories):
                raise RefusedError("its columns of categories cannot be told apart")
            categorical = sorted(categorical + unused)
        for column, values in zip(categorical, pandas_categories):
            graph.columns[column]["type"] = "text"
            graph.columns[column]["categories"] = [str(value) for value in values]
            graph.columns[column]["unknown_missing"] = True

    def sum(self, graph: Graph, slot: int) -> int:
        """Add the stage of the trees."""
        trees = Trees()
        for number, tree in enumerate(self.trees):
            if int(tree.get("is_linear", "0") or 0):
                raise RefusedError("its leaves are linear models")
            self._add(trees, tree, number % self.groups)
        return graph.trees(
            trees,
            **{"in": slot},
            zero=ZERO,
            fractions=True,
            outputs=self.groups,
            init=graph.array(np.zeros(self.groups), "f64"),
            group=graph.array(trees.groups, "u32"),
            divide=float(len(self.trees) // self.groups) if self.average else 0.0,
        )

    def _add(self, trees: Trees, tree: dict[str, str], group: int) -> None:
        leaves = _numbers(tree["leaf_value"])
        if len(leaves) == 1:
            trees.add([-1], [0], [0], [0], [0], leaves, group)
            return
        inner = len(leaves) - 1
        kinds = _numbers(tree["decision_type"]).astype(np.int64)
        threshold = _numbers(tree["threshold"])
        mode = np.empty(inner, dtype=np.int64)
        bounds = _numbers(tree.get("cat_boundaries", "")).astype(np.int64)
        words = _numbers(tree.get("cat_threshold", "")).astype(np.int64)
        for node, kind in enumerate(kinds):
            if kind & 1:
                which = int(threshold[node])
                threshold[node] = trees.set(words[bounds[which] : bounds[which + 1]])
                mode[node] = CATEGORICAL | SET_GOES_LEFT
            else:
                mode[node] = MISSING[int(kind) >> 2 & 3][int(kind) >> 1 & 1]
        # The children of inner nodes are inner nodes, or leaves by their complement; here leaves are nodes as well.
        left, right = (_numbers(tree[name]).astype(np.int64) for name in ("left_child", "right_child"))
        left, right = (np.where(child >= 0, child, inner + ~child) for child in (left, right))
        trees.add(
            np.concatenate([_numbers(tree["split_feature"]).astype(np.int64), np.full(len(leaves), -1)]),
            np.concatenate([threshold, np.zeros(len(leaves))]),
            np.concatenate([left, np.arange(len(leaves))]),
            np.concatenate([right, np.zeros(len(leaves), dtype=np.int64)]),
            np.concatenate([mode, np.zeros(len(leaves), dtype=np.int64)]),
            leaves,
            group,
        )

    def link(self, graph: Graph, raw: int, both: bool = False) -> int:
        """Add the stage that makes predictions of raw scores; `both` adds the probability of the other class."""
        sigmoid = float(self.options.get("sigmoid", 1))
        if self.objective == "regression" and "sqrt" in self.options:
            return graph.stage("link", **{"in": raw}, function="square")
        if self.objective in PLAIN:
            return raw
        if self.objective in ("binary", "cross_entropy"):
            return graph.stage("link", **{"in": raw}, function="sigmoid2" if both else "sigmoid", a=sigmoid)
        if self.objective == "multiclassova":
            return graph.stage("link", **{"in": raw}, function="sigmoids", a=sigmoid)
        if self.objective == "multiclass":
            return graph.stage("link", **{"in": raw}, function="softmaxC")
        if self.objective in EXPONENTIAL:
            return graph.stage("link", **{"in": raw}, function="expC")
        raise RefusedError(f"its objective {self.objective} is not known")


def _numbers(text: str) -> Any:
    return np.array(text.split(), dtype=np.float64)


def booster(model: Any, graph: Graph, slot: int) -> dict[str, Output]:
    """A Booster."""
    what = Booster(model.model_to_string())
    what.columns(graph, model.pandas_categorical, slot)
    raw = what.sum(graph, slot)
    return {"predict": Output(what.link(graph, raw), flat=what.groups == 1)}


def wrapper(model: Any, graph: Graph, slot: int) -> dict[str, Output]:
    """A class of the scikit-learn interface."""
    inner = model.booster_
    what = Booster(inner.model_to_string())
    if callable(getattr(model, "_objective", None)):
        raise RefusedError("its objective is a function of the user's")
    what.columns(graph, inner.pandas_categorical, slot)
    raw = what.sum(graph, slot)
    if not type(model).__name__.endswith("Classifier"):
        return {"predict": Output(what.link(graph, raw), flat=what.groups == 1)}
    if what.objective not in ("binary", "multiclass", "multiclassova"):
        raise RefusedError(f"a classifier with the objective {what.objective}")
    proba = what.link(graph, raw, both=True)
    label = graph.stage("label", **{"in": proba}, rule="argmax")
    return {"predict": Output(label, "label", True, list(model.classes_)), "predict_proba": Output(proba)}


def narrows(model: Any, columns: int) -> dict[str, bool]:
    """Tell which rows the library takes as float32: those of whole numbers only, and those with None.

    It does so with arrays of another type than float, and what comes to it depends on its release and on what is before
    it. Where that cannot be seen, it is assumed.
    """
    import lightgbm

    usual = lightgbm.Booster.predict
    kinds: list[Any] = []

    def predict(self: Any, data: Any, *args: Any, **options: Any) -> Any:
        kinds.append(getattr(np.array(data) if isinstance(data, list) else data, "dtype", None))  # None: a table
        return usual(self, data, *args, **options)

    found = {}
    lightgbm.Booster.predict = predict
    try:
        for name, row in (("whole", [1] * columns), ("null", [None] + [1.5] * (columns - 1))):
            kinds.clear()
            with contextlib.suppress(Exception):  # a refusal, as of None
                model.predict([row])
            found[name] = not kinds or any(kind is not None and kind.kind != "f" for kind in kinds)
    finally:
        lightgbm.Booster.predict = usual
    return found


HANDLERS = {
    "lightgbm.basic.Booster": booster,
    "lightgbm.sklearn.LGBMClassifier": wrapper,
    "lightgbm.sklearn.LGBMRegressor": wrapper,
    "lightgbm.sklearn.LGBMRanker": wrapper,
}
