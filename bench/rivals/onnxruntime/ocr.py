"""Reads the text in an image in a loop, without a server, with the code and models of examples/onnx-ocr.

python ocr.py EXAMPLE MODELS SECONDS. Prints the images per second, and the first text.
"""

import base64
import importlib.util
import sys
import time
from pathlib import Path
from typing import Any

import onnxruntime

example, models, seconds = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])


def step(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, example / name / "preprocess.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Preprocess()


def session(name: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(models / f"{name}.onnx", options, providers=["CPUExecutionProvider"])


steps = {name: step(name) for name in ("detect", "crop", "turn", "read")}
sessions = {name: session(name) for name in ("detect", "turn", "read")}


def call(name: str, body: dict) -> dict:
    state: dict = {}
    data = steps[name].preprocess(body, state)
    output = sessions[name].run(None, {sessions[name].get_inputs()[0].name: data})[0]
    return steps[name].postprocess(output, state)


def read(image: str) -> list:
    boxes = call("detect", {"image": image})["boxes"]
    turned = call("turn", steps["crop"].process({"image": image, "boxes": boxes}, {}))
    return call("read", turned)["texts"]


image = base64.b64encode((models / "invoice.png").read_bytes()).decode()
texts = read(image)
calls, begun = 0, time.perf_counter()
while (took := time.perf_counter() - begun) < seconds:
    read(image)
    calls += 1
print(calls / took, texts[0])
