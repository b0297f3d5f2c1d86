"""Writes the models of this folder, with onnx, scikit-learn and skl2onnx of requirements/onnx.txt:

make onnx-testdata
"""

import json
import pathlib

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper as h
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

HERE = pathlib.Path(__file__).parent
OPSET = {"": 17, "ai.onnx.ml": 3}
ANSWERS = {}


def save(name, nodes, inputs, outputs, initializers=(), **more):
    graph = h.make_graph(nodes, name, inputs, outputs, list(initializers))
    model = h.make_model(
        graph,
        opset_imports=[h.make_opsetid("", 17), h.make_opsetid("ai.onnx.ml", 3)],
        producer_name="testdata",
        ir_version=8,
    )
    onnx.save(model, HERE / f"{name}.onnx", **more)


def value(name, kind, shape):
    return h.make_tensor_value_info(name, kind, shape)


def sklearn_models():
    x, y = load_iris(return_X_y=True)
    x = x.astype(np.float32)
    words = np.array(["setosa", "versicolor", "virginica"])[y]
    rows = [("X", FloatTensorType([None, 4]))]
    for name, model, labels, zipmap in [
        ("logistic", LogisticRegression(max_iter=300), y, False),
        ("zipmap", LogisticRegression(max_iter=300), y, True),
        ("zipmap_words", LogisticRegression(max_iter=300), words, True),
        ("forest", RandomForestClassifier(20, max_depth=3, random_state=1), y, False),
    ]:
        model.fit(x, labels)
        onnx.save(
            to_onnx(model, initial_types=rows, options={"zipmap": zipmap}, target_opset=OPSET),
            HERE / f"{name}.onnx",
        )
        asked = x[::15]
        ANSWERS[name] = {
            "x": asked.tolist(),
            "labels": model.predict(asked).tolist(),
            "probabilities": model.predict_proba(asked).tolist(),
        }
    table = {
        "age": np.array([[20], [30], [40], [50]], np.float32),
        "city": np.array([["a"], ["b"], ["a"], ["c"]]),
        "visits": np.array([[1], [2], [3], [4]], np.int64),
    }
    columns = ColumnTransformer(
        [("numbers", StandardScaler(), [0, 2]), ("words", OneHotEncoder(handle_unknown="ignore"), [1])]
    )
    rows = np.array([[20.0, "a", 1], [30.0, "b", 2], [40.0, "a", 3], [50.0, "c", 4]], object)
    model = make_pipeline(columns, LogisticRegression()).fit(rows, [0, 1, 0, 1])
    del table
    types = [
        ("age", FloatTensorType([None, 1])),
        ("city", StringTensorType([None, 1])),
        ("visits", Int64TensorType([None, 1])),
    ]
    onnx.save(
        to_onnx(model, initial_types=types, options={"zipmap": False}, target_opset=OPSET),
        HERE / "columns.onnx",
    )
    ANSWERS["columns"] = {
        "rows": rows.tolist(),
        "labels": model.predict(rows).tolist(),
        "probabilities": model.predict_proba(rows).tolist(),
    }


def small_graphs():
    kinds = {
        "bool": T.BOOL,
        "uint8": T.UINT8,
        "int8": T.INT8,
        "uint16": T.UINT16,
        "int16": T.INT16,
        "uint32": T.UINT32,
        "int32": T.INT32,
        "uint64": T.UINT64,
        "int64": T.INT64,
        "float16": T.FLOAT16,
        "bfloat16": T.BFLOAT16,
        "float": T.FLOAT,
        "double": T.DOUBLE,
        "string": T.STRING,
    }
    save(
        "all_types",
        [h.make_node("Identity", [f"in_{k}"], [f"out_{k}"]) for k in kinds],
        [value(f"in_{k}", t, ["n", 2]) for k, t in kinds.items()],
        [value(f"out_{k}", t, ["n", 2]) for k, t in kinds.items()],
    )
    # y = x + 1 row by row; a second input that is a scalar
    one = h.make_tensor("one", T.FLOAT, [], [1])
    save(
        "plus_one",
        [h.make_node("Add", ["x", "one"], ["y"])],
        [value("x", T.FLOAT, ["batch", 3])],
        [value("y", T.FLOAT, ["batch", 3])],
        [one],
    )
    save(
        "scaled",
        [h.make_node("Mul", ["x", "factor"], ["y"])],
        [value("x", T.FLOAT, ["batch", 3]), value("factor", T.FLOAT, [])],
        [value("y", T.FLOAT, ["batch", 3])],
    )
    # a sequence of tensors
    save(
        "parts",
        [h.make_node("SplitToSequence", ["x"], ["parts"], axis=0)],
        [value("x", T.FLOAT, ["n", 2])],
        [h.make_tensor_sequence_value_info("parts", T.FLOAT, None)],
    )
    # a loop of `times` iterations: it ends at a deadline only
    body = h.make_graph(
        [h.make_node("Identity", ["more"], ["more_out"]), h.make_node("Add", ["sum", "step"], ["sum_out"])],
        "body",
        [value("i", T.INT64, []), value("more", T.BOOL, []), value("sum", T.FLOAT, [1])],
        [value("more_out", T.BOOL, []), value("sum_out", T.FLOAT, [1])],
        [h.make_tensor("step", T.FLOAT, [1], [1])],
    )
    save(
        "loop",
        [h.make_node("Loop", ["times", "", "start"], ["y"], body=body)],
        [value("times", T.INT64, []), value("start", T.FLOAT, [1])],
        [value("y", T.FLOAT, [1])],
    )
    # allocates `n` times `n` numbers
    save(
        "square",
        [
            h.make_node("Shape", ["x"], ["shape"]),
            h.make_node("Concat", ["shape", "shape"], ["both"], axis=0),
            h.make_node("ConstantOfShape", ["both"], ["zeros"]),
            h.make_node("ReduceSum", ["zeros"], ["y"], keepdims=0),
        ],
        [value("x", T.FLOAT, ["n"])],
        [value("y", T.FLOAT, [])],
    )
    # a vector of three numbers for each of 300 tokens
    rows = np.sin(np.arange(900)).astype(np.float32).tobytes()
    table = h.make_tensor("table", T.FLOAT, [300, 3], rows, raw=True)
    (HERE / "tokens").mkdir(exist_ok=True)
    save(
        "tokens/model",
        [
            h.make_node("Gather", ["table", "input_ids"], ["rows"]),
            h.make_node("Cast", ["attention_mask"], ["mask"], to=T.FLOAT),
            h.make_node("Unsqueeze", ["mask", "last"], ["column"]),
            h.make_node("Mul", ["rows", "column"], ["last_hidden_state"]),
        ],
        [value("input_ids", T.INT64, ["n", "s"]), value("attention_mask", T.INT64, ["n", "s"])],
        [value("last_hidden_state", T.FLOAT, ["n", "s", 3])],
        [table, h.make_tensor("last", T.INT64, [1], [-1])],
    )
    # weights in a file beside the model, and one that leads out of the folder
    weights = h.make_tensor("w", T.FLOAT, [3, 300], np.arange(900, dtype=np.float32).tobytes(), raw=True)
    (HERE / "external").mkdir(exist_ok=True)
    (HERE / "external" / "weights.bin").unlink(missing_ok=True)
    save(
        "external/model",
        [h.make_node("MatMul", ["x", "w"], ["y"])],
        [value("x", T.FLOAT, ["batch", 3])],
        [value("y", T.FLOAT, ["batch", 300])],
        [weights],
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    model = onnx.load(HERE / "external" / "model.onnx", load_external_data=False)
    (HERE / "escapes").mkdir(exist_ok=True)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = "../external/weights.bin"
    (HERE / "escapes" / "model.onnx").write_bytes(model.SerializeToString())


if __name__ == "__main__":
    sklearn_models()
    small_graphs()
    (HERE / "answers.json").write_text(json.dumps(ANSWERS) + "\n")
