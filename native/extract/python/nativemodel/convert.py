"""Models that have no native form, as ONNX: by skl2onnx, or onnxmltools, if the interpreter has them."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from nativemodel.graph import RefusedError

SPREAD = 3.0  # of columns of which the model tells nothing


def convert(model: Any, method: str, path: str, double: bool) -> None:
    """Write the model as ONNX. Its input are rows of numbers, its only output the answer of the method."""
    library = type(model).__module__.split(".")[0]
    name = {"sklearn": "skl2onnx", "xgboost": "onnxmltools", "lightgbm": "onnxmltools"}.get(library)
    if name is None:
        raise RefusedError(f"models of {library} are not converted")
    try:
        package = importlib.import_module(name)
        types = importlib.import_module(
            f"{name}.convert.common.data_types" if name == "onnxmltools" else f"{name}.common.data_types"
        )
        helper = importlib.import_module("onnx.helper")
        tensor = importlib.import_module("onnx").TensorProto
    except ImportError as error:
        raise RefusedError(f"the interpreter has no {error.name}, which converts it") from error
    kind = types.DoubleTensorType if double else types.FloatTensorType
    rows = [("rows", kind([None, columns(model)]))]
    try:
        if library == "sklearn":
            options = {id(model): {"zipmap": False}} if hasattr(model, "predict_proba") else None
            made = package.convert_sklearn(model, initial_types=rows, options=options)
        else:
            zipmap = {"zipmap": False} if library == "lightgbm" else {}
            made = getattr(package, f"convert_{library}")(model, initial_types=rows, **zipmap)
    except Exception as error:  # whatever a converter raises for what it cannot convert
        raise RefusedError(f"{name} does not convert it: {type(error).__name__}: {error}") from error
    outputs = list(made.graph.output)
    at = 1 if method == "predict_proba" and len(outputs) > 1 else 0
    if method not in ("", "predict", "predict_proba", "transform"):
        raise RefusedError(f"the method {method} has no output in ONNX")
    chosen = outputs[at]
    answer = np.asarray(getattr(model, method or "predict")(np.zeros((2, columns(model)))))
    if answer.ndim == 1:  # many converters return a column
        shape = helper.make_tensor("answer_shape", tensor.INT64, [1], [-1])
        made.graph.initializer.append(shape)
        made.graph.node.append(helper.make_node("Reshape", [chosen.name, "answer_shape"], ["answer"]))
        chosen = helper.make_tensor_value_info("answer", chosen.type.tensor_type.elem_type, [None])
    del made.graph.output[:]
    made.graph.output.append(chosen)
    with open(path, "wb") as file:
        file.write(made.SerializeToString())


def columns(model: Any) -> int:
    """Return the number of columns that the model takes."""
    found = getattr(model, "n_features_in_", None)
    if found is None:
        raise RefusedError("it does not tell how many columns it takes")
    return int(found)


def ranges(model: Any) -> list[tuple[float, float]]:
    """Return for each column between which numbers the model tells rows apart, as far as it shows that."""
    count = columns(model)
    low, high = np.full(count, np.inf), np.full(count, -np.inf)
    for part in parts(model):
        if getattr(part, "n_features_in_", count) != count:
            continue  # it gets other columns
        for name in ("_fit_X", "support_vectors_", "cluster_centers_", "centroids_", "theta_", "means_"):
            values = getattr(part, name, None)
            if isinstance(values, np.ndarray) and values.ndim == 2 and values.shape[1] == count and len(values):
                low, high = np.minimum(low, values.min(axis=0)), np.maximum(high, values.max(axis=0))
        mean, scale = getattr(part, "mean_", None), getattr(part, "scale_", None)
        if isinstance(mean, np.ndarray) and isinstance(scale, np.ndarray) and mean.shape == scale.shape == (count,):
            low, high = np.minimum(low, mean - SPREAD * scale), np.maximum(high, mean + SPREAD * scale)
            break  # what follows gets scaled columns
    known = np.isfinite(low) & np.isfinite(high)
    low, high = np.where(known, low, -SPREAD), np.where(known, high, SPREAD)
    return [(float(a), float(max(b, a + 1e-6))) for a, b in zip(low, high)]


def parts(model: Any) -> list[Any]:
    """Return the model, or the steps of a pipeline."""
    steps = getattr(model, "steps", None)
    return [step for _, step in steps] if isinstance(steps, list) else [model]
