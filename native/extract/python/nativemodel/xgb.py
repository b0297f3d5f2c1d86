"""Models of XGBoost: boosters of trees (gbtree, dart), and the classes of its scikit-learn interface."""

from __future__ import annotations

import ctypes
import json
import math
from typing import Any, Optional

import numpy as np

from nativemodel import arithmetic
from nativemodel.graph import CATEGORICAL, NAN_LEFT, NAN_RIGHT, UNKNOWN_LEFT, Graph, Output, RefusedError, Trees

LOGISTIC = ("binary:logistic", "reg:logistic")
PLAIN = (
    "binary:logitraw",
    "rank:map",
    "rank:ndcg",
    "rank:pairwise",
    "reg:absoluteerror",
    "reg:linear",
    "reg:pseudohubererror",
    "reg:squarederror",
    "reg:squaredlogerror",
)
EXPONENTIAL = ("count:poisson", "reg:gamma", "reg:tweedie", "survival:cox", "survival:aft")
INFINITE = "infinity or a value too large for float32, which an XGBoost DMatrix refuses"


class Booster:
    """What a booster's own JSON says."""

    def __init__(self, booster: Any, rounds: int = 0, in_place: bool = False) -> None:
        self.in_place = in_place
        learner = json.loads(bytes(booster.save_raw("json")))["learner"]
        gradient = learner["gradient_booster"]
        self.weights = None
        if gradient["name"] == "dart":
            self.weights = np.asarray(gradient["weight_drop"], dtype=np.float32)
            gradient = gradient["gbtree"]
        elif gradient["name"] != "gbtree":
            raise RefusedError(f"its booster {gradient['name']} has no trees")
        model = gradient["model"]
        parameters = learner["learner_model_param"]
        if int(parameters.get("num_target", 1)) > 1:
            raise RefusedError("it has several targets")
        self.objective = learner["objective"]["name"]
        self.classes = int(parameters["num_class"])
        self.groups = max(self.classes, 1)
        self.features = int(parameters["num_feature"])
        self.names = learner.get("feature_names") or None
        self.types = learner.get("feature_types") or []
        self.trees, self.info = model["trees"], [int(group) for group in model["tree_info"]]
        if rounds:
            parallel = int(model["gbtree_model_param"].get("num_parallel_tree", 1) or 1)
            last = model.get("iteration_indptr", [])
            end = int(last[rounds]) if len(last) > rounds else rounds * parallel * self.groups
            self.trees, self.info = self.trees[:end], self.info[:end]
        self.begin = self._begin(parameters["base_score"])
        self.categories = self._categories(model.get("cats"))

    def _begin(self, text: str) -> Any:
        """Return the margins that sums begin with, by output."""
        scores = np.atleast_1d(np.asarray(json.loads(text), dtype=np.float32))
        if self.objective in LOGISTIC:
            scores = np.array([_logit(score) for score in scores], dtype=np.float32)
        elif self.objective in EXPONENTIAL:
            scores = np.array([_logf(score) for score in scores], dtype=np.float32)
        if len(scores) not in (1, self.groups):
            raise RefusedError(f"it has {len(scores)} base scores for {self.groups} outputs")
        return np.broadcast_to(scores, self.groups)

    def _categories(self, stored: Any) -> dict[int, list[str]]:
        """Return the texts of the columns of categories, as far as the model has them (since 3.1)."""
        found = {}
        for column, encoded in enumerate((stored or {}).get("enc", [])):
            offsets, values = encoded.get("offsets"), bytes(v & 255 for v in encoded.get("values", []))
            if offsets:
                found[column] = [values[a:b].decode() for a, b in zip(offsets, offsets[1:])]
        return found

    def columns(self, graph: Graph) -> None:
        if graph.columns:
            return
        for i in range(self.features):
            column: dict[str, Any] = {"type": "float32", "optional": True}
            if self.names:
                column["name"] = self.names[i]
            if i in self.categories:
                column["type"] = "text"
                column["categories"] = self.categories[i]
                column["unknown_missing"] = True
            graph.columns.append(column)

    def sum(self, graph: Graph, slot: int, finite: str, missing: Optional[float] = None) -> int:
        """Add the stage of the trees. `missing` is a number that marks missing values, beside NaN."""
        trees = Trees()
        most: dict[int, int] = {}
        for number, (tree, group) in enumerate(zip(self.trees, self.info)):
            if int(tree["tree_param"].get("size_leaf_vector", 1) or 1) > 1:
                raise RefusedError("its leaves are vectors")
            self._add(trees, tree, group, number, most)
        if slot == 0:
            for column in most:
                graph.codes[column] = [float(code) for code in range(most[column] + 1)]
                graph.unknown[column] = float(most[column] + 3)
            if missing is not None:
                graph.boundaries.extend((column, float(missing)) for column in range(self.features))
        members: dict[str, Any] = {"finite": finite} if finite else {}
        source = list(range(self.features)) if slot == 0 else None
        if missing is not None:
            slot = graph.stage("link", **{"in": slot}, function="blank", a=float(missing))
        return graph.trees(
            trees,
            source,
            **{"in": slot},
            float32=True,
            less=True,
            sum32=True,
            outputs=self.groups,
            init=graph.array(self.begin, "f64"),
            group=graph.array(trees.groups, "u32"),
            **members,
        )

    def _add(self, trees: Trees, tree: Any, group: int, number: int, most: dict[int, int]) -> None:
        left = np.asarray(tree["left_children"], dtype=np.int64)
        leaf = left < 0
        conditions = np.asarray(tree["split_conditions"], dtype=np.float64).astype(np.float32)
        threshold = conditions.astype(np.float64)
        mode = np.where(np.asarray(tree["default_left"], dtype=np.int64) != 0, NAN_LEFT, NAN_RIGHT)
        rows = np.cumsum(leaf) - 1
        for node, start, size in zip(tree["categories_nodes"], tree["categories_segments"], tree["categories_sizes"]):
            members = np.asarray(tree["categories"][start : start + size], dtype=np.int64)
            words = np.zeros(int(members.max()) // 32 + 1 if size else 1, dtype=np.uint32)
            np.bitwise_or.at(words, members // 32, np.uint32(1) << (members % 32).astype(np.uint32))
            threshold[node] = trees.set(words)
            mode[node] |= CATEGORICAL | UNKNOWN_LEFT  # members go right
            column = int(tree["split_indices"][node])
            most[column] = max(most.get(column, 0), int(members.max()) if size else 0)
        for column, kind in zip(tree["split_indices"], tree.get("split_type", [])):
            if kind:
                most.setdefault(int(column), 0)
        trees.add(
            np.where(leaf, -1, np.asarray(tree["split_indices"], dtype=np.int64)),
            threshold,
            np.where(leaf, rows, left),
            np.asarray(tree["right_children"], dtype=np.int64),
            mode,
            self._weighted(conditions[leaf], group, number),
            group,
        )

    def _weighted(self, leaves: Any, group: int, number: int) -> Any:
        """Return what a tree's leaves add to the sum."""
        if self.weights is None:
            return leaves
        if self.in_place:  # which computes a tree's answer with the base score, and subtracts that again
            leaves = (self.begin[group] + leaves) - self.begin[group]
        return leaves * self.weights[number]

    def link(self, graph: Graph, margin: int, both: bool = False) -> int:
        """Add the stage that makes predictions of margins; `both` adds the probability of the other class."""
        if self.objective in LOGISTIC:
            return graph.stage("link", **{"in": margin}, function="sigmoidf2" if both else "sigmoidf")
        if self.objective in PLAIN:
            return margin
        if self.objective in EXPONENTIAL:
            return graph.stage("link", **{"in": margin}, function="expf")
        if self.objective == "multi:softprob":
            return graph.stage("link", **{"in": margin}, function="softmaxf")
        if self.objective in ("multi:softmax", "binary:hinge"):
            return graph.stage("label", **{"in": margin}, rule="argmax" if self.classes else "positive")
        raise RefusedError(f"its objective {self.objective} is not known")


def _logf(x: Any) -> Any:
    function = ctypes.CDLL("libm.so.6").logf if arithmetic.linux() else None
    if function is None:
        return np.float32(math.log(float(x)))
    function.restype, function.argtypes = ctypes.c_float, [ctypes.c_float]
    return np.float32(function(float(x)))


def _logit(p: Any) -> Any:
    return -_logf(np.float32(1) / np.float32(p) - np.float32(1))


def booster(model: Any, graph: Graph, slot: int) -> dict[str, Output]:
    """A Booster, which predicts from a DMatrix."""
    import xgboost

    what = Booster(model)
    what.columns(graph)
    graph.infinite = False
    margin = what.sum(graph, slot, INFINITE)
    names, types = model.feature_names, model.feature_types

    def feed(rows: Any) -> Any:
        return xgboost.DMatrix(rows, feature_names=names, feature_types=types, enable_categorical=bool(what.types))

    graph.feed = feed
    flat = what.groups == 1 or what.objective == "multi:softmax"
    return {"predict": Output(what.link(graph, margin), "float32", flat)}


def wrapper(model: Any, graph: Graph, slot: int) -> dict[str, Output]:
    """A class of the scikit-learn interface, which predicts in place."""
    missing = None if model.missing is None or math.isnan(model.missing) else float(model.missing)
    inner = model.get_booster()
    what = Booster(inner, model._get_iteration_range(None)[1], in_place=True)
    what.columns(graph)
    margin = what.sum(graph, slot, "", missing)
    if slot == 0 and inner.feature_types and "c" in inner.feature_types and graph.feed is None:
        names, types = inner.feature_names, inner.feature_types
        graph.unknown.update(
            dict.fromkeys(what.categories, math.nan)
        )  # a table with the training's categories has no other
        graph.feed = lambda rows: _frame(rows, names, types, what.categories, graph.codes)
    classes = getattr(model, "n_classes_", None) if type(model).__name__.endswith("Classifier") else None
    if classes is None:
        return {"predict": Output(what.link(graph, margin), "float32", what.groups == 1)}
    if what.objective in LOGISTIC:
        proba = what.link(graph, margin, both=True)
    elif what.objective == "multi:softprob":
        proba = what.link(graph, margin)
    else:
        raise RefusedError(f"a classifier with the objective {what.objective}")
    label = graph.stage("label", **{"in": proba}, rule="argmax")
    return {
        "predict": Output(label, "label", True, list(range(int(classes)))),
        "predict_proba": Output(proba, "float32"),
    }


def _frame(rows: Any, names: Any, types: Any, texts: dict[int, list[str]], codes: dict[int, list[float]]) -> Any:
    """Return the table that the class was fitted on, of the codes of its categories."""
    import pandas

    made = {}
    for i, kind in enumerate(types):
        values = rows[:, i]
        if kind == "c":
            known = texts.get(i)
            count = len(known) if known is not None else int(max(codes.get(i, [0]))) + 8
            whole = np.where(np.isfinite(values) & (values >= 0) & (values < count), values, -1).astype(np.int64)
            values = pandas.Categorical.from_codes(whole, known if known is not None else list(range(count)))
        made[names[i] if names else i] = values
    return pandas.DataFrame(made)


HANDLERS = {
    "xgboost.core.Booster": booster,
    "xgboost.sklearn.XGBClassifier": wrapper,
    "xgboost.sklearn.XGBRegressor": wrapper,
    "xgboost.sklearn.XGBRanker": wrapper,
    "xgboost.sklearn.XGBRFClassifier": wrapper,
    "xgboost.sklearn.XGBRFRegressor": wrapper,
}
