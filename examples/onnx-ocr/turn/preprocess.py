"""Turns lines of text that are upside down: PP-OCR's classifier, between two methods of ours."""

from typing import Any

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 48, 192
SURE = 0.9  # a line with less stays as it is


class Preprocess:
    def preprocess(self, body: dict, state: dict, collect_custom_statistics_fn=None) -> Any:
        state["crops"] = crops = np.asarray(body["crops"], np.uint8)
        state["widths"] = widths = np.asarray(body["widths"], np.int64)
        x = np.zeros((len(crops), 3, HEIGHT, WIDTH), np.float32)
        for row, crop, width in zip(x, crops, widths.tolist()):
            seen = min(width, WIDTH)
            pixels = np.asarray(Image.fromarray(crop[:, :width]).resize((seen, HEIGHT)), np.float32)[
                :, :, ::-1
            ]
            row[:, :, :seen] = ((pixels / 255 - 0.5) / 0.5).transpose(2, 0, 1)
        return x

    def postprocess(self, data: Any, state: dict, collect_custom_statistics_fn=None) -> dict:
        crops = state["crops"].copy()
        turned = np.asarray(data)[:, 1] > SURE
        for i in np.flatnonzero(turned).tolist():
            width = state["widths"][i]
            crops[i, :, :width] = crops[i, ::-1, :width][:, ::-1]
        return {"crops": crops, "widths": state["widths"], "turned": turned}
