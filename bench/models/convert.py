"""Converts the forest of train.py to ONNX: python convert.py FOLDER."""

import sys
from pathlib import Path

import joblib
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType

folder = Path(sys.argv[1])
model = to_onnx(
    joblib.load(folder / "rf.pkl"),
    initial_types=[("X", FloatTensorType([None, 10]))],
    options={"zipmap": False},
    target_opset={"": 17, "ai.onnx.ml": 3},
)
(folder / "rf.onnx").write_bytes(model.SerializeToString())
