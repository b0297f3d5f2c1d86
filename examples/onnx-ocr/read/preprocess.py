"""Reads lines of text: PP-OCR's text recognition, between two methods of ours."""

from pathlib import Path
from typing import Any

import numpy as np

# The characters of the model, which prepare.py has taken out of its file; the first class is none of them.
CHARACTERS = ["", *Path(__file__).with_name("characters.txt").read_text(encoding="utf-8").split("\n"), " "]


class Preprocess:
    def preprocess(self, body: dict, state: dict, collect_custom_statistics_fn=None) -> Any:
        pixels = np.asarray(body["crops"], np.uint8).astype(np.float32)[:, :, :, ::-1]  # BGR
        x = ((pixels / 255 - 0.5) / 0.5).transpose(0, 3, 1, 2)
        for row, width in zip(x, np.asarray(body["widths"]).tolist()):
            row[:, :, width:] = 0
        return np.ascontiguousarray(x)

    def postprocess(self, data: Any, state: dict, collect_custom_statistics_fn=None) -> dict:
        texts, scores = [], []
        for steps in np.asarray(data):
            classes, sure = steps.argmax(1), steps.max(1)
            new = (classes != 0) & (classes != np.concatenate(([-1], classes[:-1])))
            texts.append("".join(CHARACTERS[c] for c in classes[new].tolist()))
            scores.append(float(sure[new].mean()) if new.any() else 0.0)
        return {"texts": texts, "scores": scores}
