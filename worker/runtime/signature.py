"""Describes the inputs and outputs of an endpoint: what its model and the type hints of its code tell.

Owns the report to Go (Signature in inference/engine/tensor.go has its fields). It is made once, at the first load of
an endpoint. It never calls the model's methods that compute, because libraries start threads then, which a fork does
not survive. Whatever is not known is left out, and no error of foreign code gets out.
"""

from __future__ import annotations

import json
import math
import sys
from typing import Any, Callable, NamedTuple, Optional

import codec
import hints
import tabular
from owner import end_copy

MOST_BYTES = 1 << 20
MOST_CATEGORIES = 1000  # of one column
MOST_WIDTH = 20_000  # columns without names that are looked at
NO, GONE, PASSES = "no", "gone", "passes"  # a missing value: an error, replaced, handed to the next step
KINDS = {"b": "BOOL", "i": "INT64", "u": "INT64", "f": "FP64", "U": "BYTES"}
JSON_TYPES = {"BYTES": "string", "BOOL": "boolean", "INT64": "integer", "INT32": "integer"}
SAMPLES = ("statistics_", "mean_", "center_", "data_min_")  # of imputers and scalers: one value of each column
IMPUTERS = ("SimpleImputer", "KNNImputer", "IterativeImputer")
ENCODERS = ("OneHotEncoder", "OrdinalEncoder", "TargetEncoder")
TEXTS = ("CountVectorizer", "TfidfVectorizer", "HashingVectorizer")
SCALERS = ("StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler", "PowerTransformer", "QuantileTransformer")
ENSEMBLES = ("VotingClassifier", "VotingRegressor", "StackingClassifier", "StackingRegressor")


class Column(NamedTuple):
    """What is known of one column of a table. The datatype is "" if it is unknown."""

    datatype: str = ""
    missing: str = NO
    categories: Optional[list[str]] = None
    open: bool = False  # other values than the categories are answered too
    sample: Any = None
    none: bool = False  # training had None for a missing value, which scikit-learn tells from NaN

    def spec(self, name: str) -> dict[str, Any]:
        """Return the column as Go reads it."""
        spec: dict[str, Any] = {"name": name, "shape": [-1, 1]}
        if self.datatype:
            spec["datatype"] = self.datatype
        if self.categories:
            spec["categories"] = self.categories
        if self.open:
            spec["open"] = True
        if self.missing != NO:
            spec["optional"] = True
        if self.sample is not None:
            spec["example"] = self.sample
        return spec


def signature_of(
    engine: Any, instance: Any, model: Any, method: str, columns: Optional[tabular.Columns], max_frame: int
) -> Optional[dict[str, Any]]:
    """Return the signature of a loaded endpoint, None if nothing is known. Never raises."""
    found: dict[str, Any] = {}
    sources = []
    known = engine.predict is not None and model is not None
    if known and _guarded(_of_model, found, model, method or "predict", columns, instance):
        sources.append("model")
    hinted = [_guarded(of, found, instance, engine.predict is not None) for of in (_of_body, _of_answer)]
    if any(hinted):
        sources.append("type hints")
    if not sources:
        return None
    found["source"] = ", ".join(sources)
    if len(json.dumps(found)) > min(MOST_BYTES, max_frame // 2):
        for spec in found.get("inputs", ()):
            if spec.pop("categories", None):
                spec["open"] = True
        if len(json.dumps(found)) > min(MOST_BYTES, max_frame // 2):
            return None
    return found


def with_loaded(found: Optional[dict[str, Any]], loaded: Any) -> Optional[dict[str, Any]]:
    """Return the signature with what the method load returned, for an engine that has use for it."""
    if not isinstance(loaded, dict):
        return found
    try:
        text = json.dumps(loaded, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return found
    if len(text) > MOST_BYTES:
        return found
    return {"source": "none", **(found or {}), "loaded": json.loads(text)}


def columns_with_none(model: Any, columns: Optional[tabular.Columns]) -> frozenset[str]:
    """Return the columns in which a missing value is None, not NaN. Never raises."""
    if columns is None or columns.numeric:
        return frozenset()
    try:
        return frozenset(name for name, column in _described(model, list(columns.names)).items() if column.none)
    except BaseException as error:  # of a foreign class
        end_copy(error)
        return frozenset()


def _guarded(describe: Callable[..., bool], found: dict[str, Any], *args: Any) -> bool:
    part: dict[str, Any] = {}
    try:
        known = describe(part, *args)
        json.dumps(part, allow_nan=False)
    except BaseException as error:  # of a foreign class, or an annotation that cannot be evaluated
        end_copy(error)
        return False
    found.update(part)
    return known


# Type hints


def _of_body(found: dict[str, Any], instance: Any, has_model: bool) -> bool:
    """Describe the body by the annotation of the first method, which gets it."""
    method = _first_method(instance, ("preprocess",) if has_model else ("preprocess", "process"))
    schema = hints.parameter_schema(method) if method is not None else None
    if not schema:
        return False
    found["body_schema"] = schema
    example, given = hints.example_of(schema)
    if example is not None:
        found["example"], found["example_of"] = example, "code" if given else "made"
    return True


def _of_answer(found: dict[str, Any], instance: Any, has_model: bool) -> bool:
    """Describe the answer by the annotation of the last method, which returns it."""
    method = _first_method(instance, ("postprocess",) if has_model else ("postprocess", "process"))
    schema = hints.answer_schema(method) if method is not None else None
    if schema:
        found["answer_schema"] = schema
    return bool(schema)


def _first_method(instance: Any, names: tuple[str, ...]) -> Any:
    methods = (getattr(instance, name, None) for name in names)
    return next((method for method in methods if callable(method)), None)


# Models


def _of_model(found: dict[str, Any], model: Any, method: str, columns: Optional[tabular.Columns], code: Any) -> bool:
    before, after = callable(getattr(code, "preprocess", None)), callable(getattr(code, "postprocess", None))
    if before:
        found["preprocessed"] = True
        columns = tabular.columns_of(model)
    if after:
        found["postprocessed"] = True
    outputs: list[dict[str, Any]] = []
    part: dict[str, Any] = {}
    if _guarded(lambda at: bool(at.update(outputs=_outputs(model, method))) or True, part):
        outputs = part["outputs"]
    if outputs:
        found["outputs"] = outputs
        if not after:
            found["answer_schema"] = _array_schema(outputs[0])
    if columns is not None and not columns.refusal:
        found["table"] = True
        found["inputs"] = [column.spec(name) for name, column in _columns(model, columns).items()]
        return True
    body, example = _rows(found, model)
    if not before:
        found["body_schema"] = {"type": "array", "minItems": 1, **({"items": body} if body else {})}
        if example is not None:
            found["example"], found["example_of"] = [example], "made"
    return True


def _rows(found: dict[str, Any], model: Any) -> tuple[Optional[dict[str, Any]], Any]:
    """Describe a model of rows without names: the schema of one row and an example of it, None if unknown."""
    first = tabular.first_step(model)
    if _class(first, TEXTS):
        found["inputs"] = [{"name": "input-0", "datatype": "BYTES"}]
        return {"type": "string"}, "text"
    width, missing, sample = _width(model), True, None
    if width > MOST_WIDTH:
        found["inputs"] = [{"name": "input-0", "shape": [-1, width]}]
        return {"type": "array", "minItems": width, "maxItems": width}, None
    if _booster(first) is None and _lightgbm(first) is None:
        known = _described(model, [str(number) for number in range(width or 1)])
        if not all(column.datatype == "FP64" and column.categories is None for column in known.values()):
            found["inputs"] = [{"name": "input-0", "shape": [-1, width or -1]}]
            return {"type": "array", **({"minItems": width, "maxItems": width} if width else {})}, None
        missing = all(column.missing != NO for column in known.values())
        sample = [0.0 if column.sample is None else column.sample for column in known.values()]
    found["inputs"] = [{"name": "input-0", "datatype": "FP64", "shape": [-1, width or -1]}]
    cell: dict[str, Any] = {"type": "number"}
    if missing:
        found["inputs"][0]["optional"] = True
        cell = {"type": ["number", "null"]}
    row: dict[str, Any] = {"type": "array", "items": cell}
    if not width:
        return row, None
    return {**row, "minItems": width, "maxItems": width}, sample or [0.0] * width


def _width(model: Any) -> int:
    first = tabular.first_step(model)
    booster, light = _booster(first), _lightgbm(first)
    if booster is not None:
        return int(booster.num_features())
    if light is not None:
        return int(light.num_feature())
    width = getattr(model, "n_features_in_", None)
    return int(width) if isinstance(width, int) or hasattr(width, "__index__") else 0


def _columns(model: Any, columns: tabular.Columns) -> dict[str, Column]:
    first = tabular.first_step(model)
    booster = _booster(first)
    if booster is None and _lightgbm(first) is None:
        return _described(model, list(columns.names))
    kinds = dict(zip(columns.names, (booster.feature_types or ()) if booster is not None else ()))
    described = {}
    for name in columns.names:
        # A whole number may be missing, which is a float, and XGBoost takes any float.
        datatype, categories = "BOOL" if kinds.get(name) == "i" else "FP64", None
        held = columns.categories.get(name)
        if held is not None:
            datatype, categories, _ = _categories(held)
        described[name] = Column(datatype, GONE, categories, not columns.strict and categories is not None)
    return described


# scikit-learn: each function describes the columns that a step gets


def _described(step: Any, names: list[str]) -> dict[str, Column]:
    if hasattr(step, "best_estimator_"):
        return _described(step.best_estimator_, names)
    if hasattr(step, "regressor_"):
        return _described(step.regressor_, names)
    if getattr(step, "calibrated_classifiers_", None):
        return _described(step.calibrated_classifiers_[0].estimator, names)
    if _class(step, ENSEMBLES):
        return _merged([_described(one, names) for one in step.estimators_])
    if isinstance(getattr(step, "steps", None), list):
        return _of_pipeline([one for _, one in step.steps if one is not None and one != "passthrough"], names)
    if _class(step, ("FeatureUnion",)):
        parts = [one for _, one in step.transformer_list if one not in (None, "drop", "passthrough")]
        return _merged([_described(one, names) for one in parts])
    if _class(step, ("ColumnTransformer",)):
        return _of_transformers(step, names)
    if _class(step, ENCODERS):
        return {name: _encoded(step, number) for number, name in enumerate(names)}
    if _class(step, TEXTS):
        return {name: Column("BYTES", NO, sample="text") for name in names}
    if _class(step, ("FunctionTransformer",)):
        known = step.func is None
        return {name: Column("FP64" if known else "", PASSES if known else NO) for name in names}
    if _class(step, IMPUTERS):
        replaces = step.missing_values is None or step.missing_values != step.missing_values
        samples = _samples(step, len(names))
        return {
            name: Column("BYTES" if isinstance(sample, str) else "FP64", GONE if replaces else NO, sample=sample)
            for name, sample in zip(names, samples)
        }
    if not type(step).__module__.startswith("sklearn."):
        return {name: Column() for name in names}
    missing = (PASSES if hasattr(step, "transform") and not hasattr(step, "predict") else GONE) if _nan(step) else NO
    described = {
        name: Column("FP64", missing, sample=sample) for name, sample in zip(names, _samples(step, len(names)))
    }
    before = getattr(step, "_preprocessor", None)  # of histogram gradient boosting: encodes its categories
    encoder = before.named_transformers_.get("encoder") if _class(before, ("ColumnTransformer",)) else None
    if _class(encoder, ENCODERS):
        marked = [name for name, is_one in zip(names, step.is_categorical_) if is_one]
        for number, name in enumerate(marked):
            described[name] = _encoded(encoder, number)._replace(missing=GONE, open=True)
    return described


def _of_pipeline(steps: list[Any], names: list[str]) -> dict[str, Column]:
    known = {name: Column("FP64", PASSES) for name in names}
    first = True
    while steps:
        step, steps = steps[0], steps[1:]
        described = _described(step, names)
        if first:
            known, first = described, False
        else:
            for name, column in known.items():
                after = described[name]
                if after.categories is not None and column.categories is None:  # behind an imputer
                    after = after._replace(sample=column.sample if column.datatype == after.datatype else None)
                    column = after._replace(missing=column.missing)
                known[name] = column._replace(missing=after.missing if column.missing == PASSES else column.missing)
        if not _one_to_one(step):
            break
    if steps:  # they get other columns
        rest = _missing_in(steps)
        known = {name: c._replace(missing=rest if c.missing == PASSES else c.missing) for name, c in known.items()}
    return known


def _missing_in(steps: list[Any]) -> str:
    for step in steps:
        missing = next(iter(_described(step, ["x"]).values())).missing if not _class(step, ENCODERS) else GONE
        if missing != PASSES:
            return missing
    return PASSES


def _of_transformers(step: Any, names: list[str]) -> dict[str, Column]:
    described: list[dict[str, Column]] = []
    for name, transformer, _ in step.transformers_:
        indices = step._transformer_to_input_indices.get(name)
        if indices is None or len(indices) == 0:
            continue
        own = [names[int(index)] for index in indices]
        if isinstance(transformer, str):
            missing = {"drop": Column("", GONE), "passthrough": Column("FP64", PASSES)}[transformer]
            described.append(dict.fromkeys(own, missing))
        else:
            described.append(_described(transformer, own))
    merged = _merged(described)
    return {name: merged.get(name, Column("", GONE)) for name in names}


def _merged(parts: list[dict[str, Column]]) -> dict[str, Column]:
    """Merge what several steps that get the same columns tell: the strictest counts."""
    merged: dict[str, Column] = {}
    for part in parts:
        for name, column in part.items():
            other = merged.get(name)
            if other is None or (not other.datatype and other.missing == GONE):
                merged[name] = column
                continue
            missing = next(one for one in (NO, PASSES, GONE) if one in (other.missing, column.missing))
            best = other if other.categories is not None or column.categories is None else column
            merged[name] = best._replace(missing=missing)
    return merged


def _one_to_one(step: Any) -> bool:
    return (_class(step, IMPUTERS) and not getattr(step, "add_indicator", False)) or _class(step, SCALERS)


def _encoded(encoder: Any, number: int) -> Column:
    held = encoder.categories_[number]
    datatype, categories, missing = _categories(held)
    accepts = _class(encoder, ("TargetEncoder",)) or getattr(encoder, "handle_unknown", "error") != "error"
    goes = NO
    if missing or accepts:
        left = getattr(encoder, "encoded_missing_value" if missing else "unknown_value", None)
        goes = PASSES if isinstance(left, float) and math.isnan(left) else GONE
    plain = held.tolist()
    none = None in plain and not any(value != value for value in plain)
    return Column(datatype, goes, categories, accepts and categories is not None, none=none)


def _categories(values: Any) -> tuple[str, Optional[list[str]], bool]:
    """Return the type of categories, the categories as texts, and whether a missing value is one of them."""
    plain = values.tolist() if hasattr(values, "tolist") else list(values)
    held = [value for value in plain if value is not None and value == value]
    kinds = {type(value) for value in held}
    datatype = next((name for kind, name in DATATYPES.items() if kinds == {kind}), "")
    if not datatype or len(held) > MOST_CATEGORIES or any(value in (math.inf, -math.inf) for value in held):
        return datatype, None, len(held) < len(plain)
    texts = held if datatype == "BYTES" else [json.dumps(value) for value in held]
    return datatype, texts, len(held) < len(plain)


DATATYPES = {bool: "BOOL", int: "INT64", float: "FP64", str: "BYTES"}


def _samples(step: Any, width: int) -> list[Any]:
    """Return a plausible value for each column, None where there is none."""
    for name in SAMPLES:
        held = getattr(step, name, None)
        if held is not None and getattr(held, "shape", None) == (width,):
            return [_sample(value) for value in held.tolist()]
    return [None] * width


def _sample(value: Any) -> Any:
    if isinstance(value, float) and math.isfinite(value):
        return round(value, 3 - math.floor(math.log10(abs(value)))) if value else 0.0
    return value if isinstance(value, (int, str)) else None


def _nan(step: Any) -> bool:
    """Return whether scikit-learn says that a step accepts missing values."""
    if hasattr(step, "__sklearn_tags__"):
        return bool(step.__sklearn_tags__().input_tags.allow_nan)
    return bool(step._get_tags()["allow_nan"])  # before 1.6


# Outputs


def _outputs(model: Any, method: str) -> list[dict[str, Any]]:
    """Return the output of the model's method."""
    datatype, shape = _output(model, method)
    output: dict[str, Any] = {"name": method}
    if datatype:
        output["datatype"] = datatype
    if shape is not None:
        output["shape"] = shape
    return [output]


def _output(model: Any, method: str) -> tuple[str, Optional[list[int]]]:
    booster = model if _is(model, "xgboost", "Booster") else None
    if booster is not None:
        return "FP32", _with_width(_xgboost_width(booster))
    if _is(model, "lightgbm", "Booster"):
        return "FP64", _with_width(int(model.num_model_per_iteration()))
    final = tabular.last_step(model)
    floats = "FP32" if _is(final, "xgboost", "XGBModel") else "FP64"
    classes = getattr(model, "classes_", None)
    if method in ("predict_proba", "predict_log_proba"):
        one = classes is not None and hasattr(classes, "dtype")
        return floats, [-1, len(classes)] if one else None
    if method == "predict":
        return _predicted(model, final, classes, floats)
    if method == "decision_function":
        return floats, [-1] if classes is not None and hasattr(classes, "dtype") and len(classes) == 2 else None
    if method == "score_samples":
        return floats, [-1]
    return "", None


def _predicted(model: Any, final: Any, classes: Any, floats: str) -> tuple[str, Optional[list[int]]]:
    kind = _estimator_type(model) or _estimator_type(final)
    if kind == "regressor":
        targets = getattr(final, "n_outputs_", None) or getattr(final, "n_targets_", None)
        if targets is None and _is(final, "xgboost", "XGBModel"):
            return floats, _with_width(_xgboost_width(final.get_booster()))
        if targets is None and hasattr(getattr(final, "coef_", None), "ndim"):
            return floats, [-1] if final.coef_.ndim == 1 else [-1, len(final.coef_)]
        if targets is None and not _is(final, "lightgbm", "LGBMModel"):
            return floats, [-1] if type(final).__name__.startswith(SINGLE) else None
        return floats, _with_width(int(targets or 1))
    if kind == "outlier_detector":
        return "INT64", [-1]
    if kind == "clusterer":
        return "INT32", [-1]
    if kind != "classifier" or classes is None:
        return "", None
    if not hasattr(classes, "dtype"):  # a list: several outputs
        kinds = {_kind_of(one) for one in classes}
        return kinds.pop() if len(kinds) == 1 else "", [-1, len(classes)]
    return _kind_of(classes), [-1] if classes.ndim == 1 else None


SINGLE = ("GradientBoosting", "HistGradientBoosting", "AdaBoost", "SVR", "NuSVR", "LinearSVR", "Isotonic")


def _kind_of(classes: Any) -> str:
    if classes.dtype.kind == "O":
        return _categories(classes)[0]
    exact = {"int32": "INT32", "int8": "INT8", "int16": "INT16", "uint8": "UINT8", "float32": "FP32"}
    return exact.get(classes.dtype.name, KINDS.get(classes.dtype.kind, ""))


def _with_width(width: int) -> list[int]:
    return [-1, width] if width > 1 else [-1]


def _xgboost_width(booster: Any) -> int:
    learner = json.loads(booster.save_config())["learner"]
    held = learner["learner_model_param"]
    if learner["objective"]["name"] == "multi:softmax":
        return 1
    return max(int(held.get("num_class", 0)), int(held.get("num_target", 1)), 1)


def _array_schema(output: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an array with this type and shape."""
    kind = output.get("datatype", "")
    schema: dict[str, Any] = {"type": JSON_TYPES.get(kind, "integer" if "INT" in kind else "number")} if kind else {}
    if codec.nan_as_null and schema.get("type") == "number":
        schema["type"] = ["number", "null"]
    for width in reversed(output.get("shape") or [-1]):
        schema = {"type": "array", **({"items": schema} if schema else {})}
        if width >= 0:
            schema.update(minItems=width, maxItems=width)
    return schema


# Classes


def _class(step: Any, names: tuple[str, ...]) -> bool:
    """Return whether a step is of a class of scikit-learn, or of one made of it."""
    return any(kind.__name__ in names and kind.__module__.startswith("sklearn.") for kind in type(step).__mro__)


def _is(model: Any, library: str, name: str) -> bool:
    module = sys.modules.get(library)
    kind = getattr(module, name, None)
    return isinstance(kind, type) and isinstance(model, kind)


def _booster(model: Any) -> Any:
    """Return the Booster of a model of XGBoost, None for another model."""
    if _is(model, "xgboost", "Booster"):
        return model
    return model.get_booster() if _is(model, "xgboost", "XGBModel") else None


def _lightgbm(model: Any) -> Any:
    if _is(model, "lightgbm", "Booster"):
        return model
    return model.booster_ if _is(model, "lightgbm", "LGBMModel") else None


def _estimator_type(model: Any) -> str:
    found = getattr(model, "_estimator_type", None)
    if not found and hasattr(model, "__sklearn_tags__"):
        found = model.__sklearn_tags__().estimator_type
    return found or ""
