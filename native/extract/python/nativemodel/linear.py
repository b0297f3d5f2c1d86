"""Linear models, and models of models: calibrated, voting, and found by a search."""

from __future__ import annotations

from typing import Any

import numpy as np

from nativemodel.graph import Graph, Output, RefusedError
from nativemodel.prepare import declare, name_of

# BLAS adds up in an order that depends on the processor and the number of rows: the library's own
# results differ by more between batches.
TOLERANCE = 1e-12
MOST_AVERAGED = 7  # from 8 on, NumPy's order of a sum along rows depends on the layout


def _linear(model: Any, graph: Graph, slot: int) -> int:
    declare(model, graph)
    coefficients = getattr(model, "coef_", None)
    if type(coefficients) is not np.ndarray:
        raise RefusedError("its coefficients are not an array")
    if coefficients.dtype != np.float64:
        raise RefusedError(f"it was fitted on {coefficients.dtype}, and computes in it")
    rows = np.atleast_2d(coefficients)
    intercept = np.zeros(len(rows)) + np.asarray(model.intercept_).reshape(-1)
    if slot == 0:
        for column, most in enumerate(np.abs(rows).max(axis=0).tolist()):
            if most > 0:
                graph.boundaries += [(column, -2 / most), (column, 2 / most)]
    graph.missing = graph.infinite = False
    return graph.stage(
        "linear",
        **{"in": slot, "coefficients": graph.array(rows, "f64"), "intercept": graph.array(intercept, "f64")},
    )


def regressor(model: Any, graph: Graph, slot: int) -> dict[str, Output]:
    """A linear regression."""
    made = _linear(model, graph, slot)
    return {"predict": Output(made, flat=model.coef_.ndim == 1, tolerance=TOLERANCE)}


def classifier(model: Any, graph: Graph, slot: int) -> dict[str, Output]:
    """A linear classifier, with its probabilities if it has some."""
    name = name_of(model)
    if name.startswith("Ridge") and model._label_binarizer.y_type_.startswith("multilabel"):
        raise RefusedError("it has several labels")
    scores = _linear(model, graph, slot)
    width = len(np.atleast_2d(model.coef_))
    results = {
        "predict": Output(graph.stage("choose", **{"in": scores}), "label", True, model.classes_.tolist()),
        "decision_function": Output(scores, flat=width == 1, tolerance=TOLERANCE),
    }
    how = ""
    if name.startswith("LogisticRegression"):
        multi = getattr(model, "multi_class", "auto")
        apart = multi in ("ovr", "warn") or (
            multi in ("auto", "deprecated") and (len(model.classes_) <= 2 or model.solver == "liblinear")
        )
        how = ("binary" if width == 1 else "rest") if apart else ("softmax2" if width == 1 else "softmax")
    elif name == "SGDClassifier" and model.loss in ("log_loss", "log"):
        how = "binary" if width == 1 else "rest"
    if how:
        made = graph.stage("logistic", **{"in": scores, "how": how})
        results["predict_proba"] = Output(made, tolerance=TOLERANCE)
    return results


def _put(model: Any, graph: Graph, slot: int) -> dict[str, Output]:
    from nativemodel.models import handle

    if hasattr(model, "n_jobs"):
        model.n_jobs = 1
    return handle(model, graph, slot)


def search(model: Any, graph: Graph, slot: int) -> dict[str, Output]:
    """The model that a search has found."""
    return _put(model.best_estimator_, graph, slot)


def frozen(model: Any, graph: Graph, slot: int) -> dict[str, Output]:
    """A model that is not fitted again."""
    return _put(model.estimator, graph, slot)


def calibrated(model: Any, graph: Graph, slot: int) -> dict[str, Output]:
    """The mean of calibrated classifiers."""
    slots = []
    for one in model.calibrated_classifiers_:
        if one.method not in ("sigmoid", "isotonic"):
            raise RefusedError(f"it is calibrated by {one.method}")
        estimator = one.estimator
        made = _put(estimator, graph, slot)
        method = "decision_function" if hasattr(estimator, "decision_function") else "predict_proba"
        if method not in made:
            raise RefusedError(f"the {method} of a {name_of(estimator)} is computed in Python only")
        scores = made[method].slot
        classes = one.classes.tolist()
        each = []
        for column, calibrator in enumerate(one.calibrators):
            place: dict[str, Any] = {"column": column, "class": classes.index(estimator.classes_[column].item())}
            if len(classes) == 2:
                place = {"column": 1 if method == "predict_proba" else 0, "class": 1}
            if name_of(calibrator) == "_SigmoidCalibration":
                place.update(a=float(calibrator.a_), b=float(calibrator.b_))
            elif name_of(calibrator) == "IsotonicRegression" and calibrator.out_of_bounds == "clip":
                points = (calibrator.X_thresholds_, calibrator.y_thresholds_)
                place.update(x=graph.array(points[0], "f64"), y=graph.array(points[1], "f64"))
            else:
                raise RefusedError(f"it is calibrated by a {name_of(calibrator)}")
            each.append(place)
        slots.append(graph.stage("calibrate", **{"in": scores, "classes": len(classes), "each": each}))
    return _mean(graph, slots, None, model.classes_, TOLERANCE)


def _mean(graph: Graph, slots: list[int], weights: Any, classes: Any, tolerance: float) -> dict[str, Output]:
    proba = _blend(graph, slots, weights)
    chosen = graph.stage("choose", **{"in": proba})
    return {
        "predict": Output(chosen, "label", True, classes.tolist()),
        "predict_proba": Output(proba, tolerance=tolerance),
    }


def _blend(graph: Graph, slots: list[int], weights: Any) -> int:
    members: dict[str, Any] = {"in": slots}
    if weights is not None:
        weights = np.asarray(weights, np.float64)
        members.update(weights=weights.tolist(), sum=float(weights.sum()))
    return graph.stage("blend", **members)


def voting_classifier(model: Any, graph: Graph, slot: int) -> dict[str, Output]:
    """The mean of probabilities."""
    if model.voting != "soft":
        raise RefusedError("it counts votes")
    made = [_put(estimator, graph, slot) for estimator in model.estimators_]
    if not all("predict_proba" in one for one in made):
        raise RefusedError("it has a model without probabilities")
    proba = [one["predict_proba"] for one in made]
    if any(one.type != "float64" for one in proba):
        raise RefusedError("it has a model of float32")
    tolerance = max(one.tolerance for one in proba)
    return _mean(graph, [one.slot for one in proba], model._weights_not_none, model.classes_, tolerance)


def voting_regressor(model: Any, graph: Graph, slot: int) -> dict[str, Output]:
    """The mean of regressions."""
    if len(model.estimators_) > MOST_AVERAGED:
        raise RefusedError(f"it has more than {MOST_AVERAGED} models")
    made = [_put(estimator, graph, slot)["predict"] for estimator in model.estimators_]
    if not all(one.flat and one.type == "float64" for one in made):
        raise RefusedError("it has a model of several outputs, or of float32")
    mean = _blend(graph, [one.slot for one in made], model._weights_not_none)
    return {"predict": Output(mean, flat=True, tolerance=max(one.tolerance for one in made))}


REGRESSORS = {
    "_base": ["LinearRegression"],
    "_ridge": ["Ridge", "RidgeCV"],
    "_coordinate_descent": ["Lasso", "LassoCV", "ElasticNet", "ElasticNetCV"],
    "_least_angle": ["Lars", "LassoLars"],
    "_bayes": ["BayesianRidge", "ARDRegression"],
    "_huber": ["HuberRegressor"],
    "_theil_sen": ["TheilSenRegressor"],
    "_stochastic_gradient": ["SGDRegressor"],
}
CLASSIFIERS = {
    "_logistic": ["LogisticRegression", "LogisticRegressionCV"],
    "_ridge": ["RidgeClassifier", "RidgeClassifierCV"],
    "_stochastic_gradient": ["SGDClassifier"],
    "_perceptron": ["Perceptron"],
}


def _paths(modules: dict[str, list[str]]) -> list[str]:
    return [f"sklearn.linear_model.{module}.{name}" for module, names in modules.items() for name in names]


HANDLERS = {
    **dict.fromkeys([*_paths(REGRESSORS), "sklearn.svm._classes.LinearSVR"], regressor),
    **dict.fromkeys([*_paths(CLASSIFIERS), "sklearn.svm._classes.LinearSVC"], classifier),
    "sklearn.calibration.CalibratedClassifierCV": calibrated,
    "sklearn.ensemble._voting.VotingClassifier": voting_classifier,
    "sklearn.ensemble._voting.VotingRegressor": voting_regressor,
    "sklearn.model_selection._search.GridSearchCV": search,
    "sklearn.model_selection._search.RandomizedSearchCV": search,
    "sklearn.frozen._frozen.FrozenEstimator": frozen,
}
