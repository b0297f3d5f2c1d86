"""Finds lines of text in an image: PP-OCR's text detection, between two methods of ours."""

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

LONGEST = 960  # pixels of a side that the model sees
MULTIPLE = 32  # its sides are multiples of that
TEXT = 0.3  # a point with more is a part of a text
SURE = 0.5  # a text whose mean is less is none
MARGIN = 1.6  # the model marks the middle of a line: the box is larger


class Preprocess:
    def preprocess(self, body: dict, state: dict, collect_custom_statistics_fn=None) -> Any:
        image = picture(body["image"])
        scale = min(LONGEST / max(image.size), 1.0)
        width, height = (max(round(side * scale / MULTIPLE), 1) * MULTIPLE for side in image.size)
        state["scale"] = (image.width / width, image.height / height)
        state["size"] = image.size
        pixels = np.asarray(image.resize((width, height)), np.float32)[:, :, ::-1]  # BGR
        return ((pixels / 255 - 0.5) / 0.5).transpose(2, 0, 1)[None]

    def postprocess(self, data: Any, state: dict, collect_custom_statistics_fn=None) -> dict:
        heat = np.asarray(data)[0, 0]
        boxes = []
        for left, top, right, bottom in areas(heat > TEXT):
            if heat[top:bottom, left:right].mean() < SURE or min(right - left, bottom - top) < 3:
                continue
            width, height = right - left, bottom - top
            margin = MARGIN * width * height / (2 * (width + height))
            x, y = state["scale"]
            boxes.append(
                (
                    max((left - margin) * x, 0),
                    max((top - margin) * y, 0),
                    min((right + margin) * x, state["size"][0]),
                    min((bottom + margin) * y, state["size"][1]),
                )
            )
        boxes.sort(key=lambda box: (round(box[1] / 10), box[0]))  # as they are read
        return {"boxes": np.asarray(boxes, np.float32).reshape(-1, 4)}


def picture(value: Any) -> Image.Image:
    """The image in a body: a file in base64 in JSON, or the file's bytes as the only element of a tensor."""
    if isinstance(value, np.ndarray):
        value = value.reshape(-1)[0]
    content = base64.b64decode(value) if isinstance(value, str) else value
    return Image.open(io.BytesIO(content)).convert("RGB")


def areas(mask: np.ndarray) -> list:
    """The boxes around what hangs together, from runs of points in each row."""
    runs, above = [], []  # a run: [begin, end, parent]
    boxes: list = []

    def root(run: list) -> list:
        while run[2] is not run:
            run = run[2]
        return run

    for y, row in enumerate(mask):
        edges = np.flatnonzero(np.diff(np.concatenate(([0], row.astype(np.int8), [0]))))
        here = []
        for begin, end in zip(edges[::2].tolist(), edges[1::2].tolist()):
            run: list = [begin, end, None, [begin, y, end, y + 1]]
            run[2] = run
            for other in above:
                if other[0] < end and other[1] > begin:
                    a, b = root(run), root(other)
                    if a is not b:
                        a[2] = b
                        box, more = b[3], a[3]
                        b[3] = [
                            min(box[0], more[0]),
                            min(box[1], more[1]),
                            max(box[2], more[2]),
                            max(box[3], more[3]),
                        ]
            here.append(run)
        runs += here
        above = here
    boxes = [run[3] for run in runs if run[2] is run]
    return boxes
