"""The engines inside a worker: each loads a model file and predicts with it.

Owns the table ENGINES. The model libraries are imported only when an endpoint of their engine loads; the
custom engines need none.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import sys
from typing import Any, Callable, NamedTuple, Optional

import versions
from answer import LoadError
from modelfiles import cure
from tracebacks import describe, user_traceback
from usercode import missing_package

Step = Callable[[Any, Any, Any], Any]
INSTALL = {
    "joblib": "scikit-learn joblib",
    "sklearn": "scikit-learn joblib",
    "xgboost": "xgboost",
    "lightgbm": "lightgbm",
}


class Engine(NamedTuple):
    """One engine. `load` and `predict` are None if only user code can load a model."""

    name: str
    load: Optional[Callable[[str, str], Any]] = None  # of the file and the method that the endpoint names, or ""
    predict: Optional[Callable[[Any, str], Step]] = None
    is_async: bool = False
    needs_code: bool = False


def engine_named(name: str) -> Engine:
    """Return the engine, or raise a LoadError that lists the supported ones."""
    engine = ENGINES.get(name)
    if engine is None:
        raise LoadError(f"engine '{name}' does not run in a Python worker; those that do: {', '.join(ENGINES)}")
    return engine


def load_model(engine: Engine, path: str, endpoint: str, method: str = "") -> Any:
    """Load the endpoint's model file with the engine's library, or raise LoadError."""
    if engine.load is None:
        return None
    if not path:
        raise LoadError(
            f"endpoint '{endpoint}' has no model: the {engine.name} engine needs one. Give it one "
            f"(clearml-serving model add --engine {engine.name} --endpoint ... --model-id ...), "
            "or a Preprocess class whose load returns it"
        )
    if not os.path.exists(path):
        raise LoadError(f"Failed loading model for '{endpoint}': {path} is not there")
    path = _only_file(path, engine, endpoint)
    try:
        return engine.load(path, method)
    except LoadError:
        raise
    except BaseException as error:
        raise LoadError(_model_fault(error, path, engine, endpoint), user_traceback(error)) from error


def _library(name: str, engine: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise LoadError(
            f"the {engine} engine needs {name}, which this Python cannot import ({error}): "
            f"{sys.executable} -m pip install {INSTALL[name]}",
            user_traceback(error),
        ) from error


def _only_file(path: str, engine: Engine, endpoint: str) -> str:
    """Return the model file itself: a packaged model is a folder, often around one file."""
    if not os.path.isdir(path):
        return path
    names = sorted(name for name in os.listdir(path) if not name.startswith("."))
    files = [os.path.join(path, name) for name in names if os.path.isfile(os.path.join(path, name))]
    if len(files) == 1 and len(names) == 1:
        return files[0]
    held = ", ".join(names[:8]) or "nothing"
    raise LoadError(
        f"Failed loading model for '{endpoint}': it is a folder ({held}) and the {engine.name} engine loads one file: "
        "write a Preprocess class whose load(self, local_file_name) returns the model"
    )


def _model_fault(error: BaseException, path: str, engine: Engine, endpoint: str) -> str:
    text = f"Failed loading model for '{endpoint}': {os.path.basename(path)} is not a model that the "
    what = cure(path, engine.name)
    text += f"{engine.name} engine can load: {f'{what} ({describe(error)})' if what else describe(error)}"
    if isinstance(error, AttributeError) and "__main__" in str(error):
        text += (
            "; the training script defined it: define the same in the endpoint's preprocess code, "
            "or move it to a package that both import"
        )
    return text + versions.hint(path) + missing_package(error)


USUAL = ("predict", "predict_proba", "predict_log_proba", "decision_function", "transform", "score_samples")


def step_of(engine: Engine, model: Any, method: str, endpoint: str) -> Step:
    """Return the step that calls the model's method ("": predict), or raise LoadError."""
    name = method or "predict"
    if callable(getattr(model, name, None)):
        return engine.predict(model, name) if engine.predict else nothing
    text = f"Failed loading model for '{endpoint}': a {type(model).__name__} has no {name} method, "
    if not method:
        raise LoadError(f"{text}which the {engine.name} engine calls")
    held = ", ".join(usual for usual in USUAL if callable(getattr(model, usual, None)))
    raise LoadError(f"{text}which the endpoint's setting method names; it has {held or 'none of ' + ', '.join(USUAL)}")


def steps_of(engine: Engine, model: Any, outputs: tuple[str, ...], predict: Step) -> Callable[[Any], Optional[Step]]:
    """Return what makes the step for wanted outputs: methods of the model by their names, beside the usual output."""

    def step_for(wanted: tuple[str, ...]) -> Optional[Step]:
        steps = {}
        for name in wanted:
            if name in outputs:
                steps[name] = predict
            elif name in USUAL and engine.predict is not None and callable(getattr(model, name, None)):
                steps[name] = engine.predict(model, name)
            else:
                return None  # the answer shows which outputs there are
        if tuple(steps) == outputs:
            return None
        return lambda data, state, collect: {name: step(data, state, collect) for name, step in steps.items()}

    return step_for


CELLS = frozenset({type(None), bool, int, float})  # of a row from JSON

# scikit-learn


def _load_sklearn(path: str, _method: str) -> Any:
    joblib = _library("joblib", "sklearn")
    _library("sklearn", "sklearn")
    return joblib.load(path)


def _predict_plainly(model: Any, method: str) -> Step:
    predict = getattr(model, method)
    return lambda data, _state, _collect: predict(data)


# XGBoost

XGBOOST_CLASSES = {"classifier": "XGBClassifier", "regressor": "XGBRegressor", "ranker": "XGBRanker"}


def _load_xgboost(path: str, method: str) -> Any:
    """Load a Booster, as the original; or, if the endpoint names a method, the scikit-learn class that was saved."""
    xgboost = _library("xgboost", "xgboost")
    booster = xgboost.Booster()
    booster.load_model(path)
    saved = booster.attr("scikit_learn") if method else None
    kind = json.loads(saved).get("_estimator_type") if saved else None
    if kind not in XGBOOST_CLASSES:
        return booster
    model = getattr(xgboost, XGBOOST_CLASSES[kind])()
    model.load_model(path)
    return model


def _predict_xgboost(model: Any, method: str) -> Step:
    """Predict as the original, and convert plain rows, which a Booster refuses, to a DMatrix."""
    xgboost = sys.modules.get("xgboost")
    if xgboost is None or method != "predict" or not isinstance(model, xgboost.Booster):
        return _predict_plainly(model, method)
    matrix, predict = xgboost.DMatrix, model.predict
    names, kinds = model.feature_names, model.feature_types
    if kinds and "c" in kinds:  # columns of categories, which a DMatrix accepts only with an option
        matrix = functools.partial(matrix, enable_categorical=True)
        plain = functools.partial(matrix, feature_names=names, feature_types=kinds)
    else:
        plain = functools.partial(matrix, feature_names=names)

    def step(data: Any, _state: Any, _collect: Any) -> Any:
        if not isinstance(data, xgboost.DMatrix):
            if isinstance(data, (list, tuple)):
                data = _rows(data)
            # Rows without names use the model's; a table's own are checked against them.
            data = matrix(data) if hasattr(data, "columns") else plain(data)
        return predict(data)

    return step


def _rows(data: Any) -> Any:
    rows = sys.modules["numpy"].asarray(data)
    if rows.dtype.kind == "O" and rows.ndim == 2 and all(type(cell) in CELLS for row in rows for cell in row):
        rows = rows.astype(float)  # None becomes NaN, which is a missing value
    if rows.ndim != 2 or rows.dtype.kind not in "biuf":
        raise ValueError(
            "the model takes rows of numbers, such as [[1.0, 2.0]], with null for a missing value, "
            f"not an array of shape {rows.shape}"
        )
    return rows


# LightGBM


def _load_lightgbm(path: str, _method: str) -> Any:
    return _library("lightgbm", "lightgbm").Booster(model_file=path)


# Replacements for methods that the user's class does not have


def nothing(_data: Any, _state: Any, _collect: Any) -> None:
    """Answer null, as the original's custom engine without a process method."""
    return


def rows_only(engine: str) -> Step:
    """Return the preprocess of a model engine without user code: it passes rows, and explains the error for
    other input.
    """

    def step(body: Any, _state: Any, _collect: Any) -> Any:
        if isinstance(body, list):
            return body
        if isinstance(body, dict):
            keys = ", ".join(repr(key) for key in list(body)[:5]) + (", ..." if len(body) > 5 else "")
            what = f"a JSON object (keys {keys})" if body else "an empty JSON object"
        else:
            what = "empty" if body is None else f"of type {type(body).__name__}"
        raise ValueError(
            f"this endpoint has no preprocess code, so the {engine} model takes a JSON list of rows, such as "
            f"[[1.0, 2.0]], and the request is {what}; to accept it, add code with a preprocess method "
            "that makes rows of it (clearml-serving model add --preprocess preprocess.py ...)"
        )

    return step


ENGINES = {
    engine.name: engine
    for engine in (
        Engine("sklearn", _load_sklearn, _predict_xgboost),  # a pickle may hold a Booster as well
        Engine("xgboost", _load_xgboost, _predict_xgboost),
        Engine("lightgbm", _load_lightgbm, _predict_plainly),
        Engine("custom"),
        Engine("custom_async", is_async=True, needs_code=True),
    )
}
