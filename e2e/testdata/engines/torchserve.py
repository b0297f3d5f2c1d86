"""Makes the model archives of the tests, and the requests to them: torchserve.py FOLDER.

The models are small and random, with fixed seeds.
"""

import collections
import io
import json
import pathlib
import subprocess
import sys
import textwrap

import torch
from PIL import Image
from torch import Tensor, nn


class Scale(nn.Module):
    """Multiplies rows, and adds a constant."""

    def __init__(self, factor: float = 2.0):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, x):
        return x * self.factor + 1


class Classifier(nn.Module):
    """Finds one of six classes in an image."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 4, 7, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(64, 6)
        )

    def forward(self, x):
        return self.net(x)


class Text(nn.Module):
    """Finds one of two classes of a text."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.EmbeddingBag(50, 4)
        self.linear = nn.Linear(4, 2)

    def forward(self, text, offsets):
        return self.linear(self.embedding(text, offsets))


class Segmenter(nn.Module):
    """Finds one of three classes for each pixel."""

    def __init__(self):
        super().__init__()
        self.net = nn.Conv2d(3, 3, 1)

    def forward(self, x) -> dict[str, Tensor]:
        return {"out": self.net(nn.functional.avg_pool2d(x, 32))}


class Detector(nn.Module):
    """Finds three objects in each image, one of them unsure."""

    def __init__(self):
        super().__init__()
        self.scores = nn.Parameter(torch.tensor([0.9, 0.7, 0.2]))

    def forward(self, images) -> list[dict[str, Tensor]]:
        found: list[dict[str, Tensor]] = []
        for image in images:
            m = image.mean()
            boxes = torch.stack([m * torch.ones(4), m + torch.arange(4), torch.zeros(4)])
            found.append({"boxes": boxes, "labels": torch.tensor([1, 0, 2]), "scores": self.scores})
        return found


EAGER = """
import torch


class Scale(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(0.0))

    def forward(self, x):
        return x * self.factor + 1
"""

ROWS = """
import logging
import torch
from ts.torch_handler.base_handler import BaseHandler
from ts.utils.util import PredictionException


class Rows(BaseHandler):
    def initialize(self, context):
        super().initialize(context)
        logging.getLogger(__name__).info("loaded from %s", context.system_properties["model_dir"])
        self.offset = (context.model_yaml_config or {}).get("offset", 0)

    def preprocess(self, data):
        rows = []
        for row in data:
            body = row.get("data") or row.get("body")
            if not isinstance(body, dict) or "x" not in body:
                raise PredictionException("there is no x", 422)
            rows.append(body["x"])
        return super().preprocess([[float(v) for v in row] for row in rows])

    def postprocess(self, data):
        return [{"y": row, "offset": self.offset} for row in data.tolist()]
"""

PLAIN = """
import json

state = {}


def handle(data, context):
    if data is None:
        state["names"] = json.load(open("index_to_name.json"))
        state["config"] = context.model_yaml_config
        return None
    answers = []
    for index, row in enumerate(data):
        kinds = {name: [type(value).__name__, len(value)] for name, value in row.items()}
        if "body" in row and row["body"] == "fail":
            raise RuntimeError("as asked")
        if "body" in row and row["body"] == "png":
            context.set_response_content_type(index, "image/png")
            wanted = context.get_request_header(index, "X-Wanted")
            context.set_response_header(index, "X-Kind", wanted or "none")
            answers.append(b"\\x89PNG")
        elif "body" in row and row["body"] == "text":
            answers.append("words")
        elif "body" in row and row["body"] == "teapot":
            context.set_response_status(418, "teapot", index)
            answers.append({"status": "teapot"})
        else:
            answers.append({"kinds": kinds, "of": state["names"]["0"], "config": state["config"]})
    return answers
"""

STREAM = """
import time
from ts.handler_utils.utils import send_intermediate_predict_response


class Stream:
    def initialize(self, context):
        self.context = context

    def handle(self, data, context):
        for i in range(3):
            send_intermediate_predict_response([f"piece {i};"], context.request_ids, "ok", 200, context)
        return ["end"]
"""

SLOW = """
import os
import time


class Slow:
    def initialize(self, context):
        pass

    def handle(self, data, context):
        for row in data:
            body = row.get("body")
            if body == "die":
                os._exit(1)
            if body == "sleep":
                time.sleep(600)
        return [str(os.getpid()) for _ in data]
"""

BROKEN = """
class Broken:
    def initialize(self, context):
        raise ValueError("these weights are no good")

    def handle(self, data, context):
        return data
"""


def script(model, path):
    torch.jit.script(model.eval()).save(str(path))


def archive(folder, name, handler, version="1.0", **files):
    """Make NAME.mar; handler is a name, or the text of a file."""
    work = folder / "work" / name
    work.mkdir(parents=True)
    if "\n" in handler:
        (work / f"{name}_handler.py").write_text(textwrap.dedent(handler))
        handler = work / f"{name}_handler.py"
    command = [
        "--model-name",
        name,
        "--version",
        version,
        "--handler",
        str(handler),
        "--export-path",
        str(folder),
        "--force",
    ]
    for flag, path in files.items():
        command += ["--" + flag.replace("_", "-"), str(path)]
    subprocess.run([str(pathlib.Path(sys.executable).parent / "torch-model-archiver"), *command], check=True)


def main() -> None:
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(1)
    script(Scale(2.0), folder / "scale.pt")
    script(Scale(3.0), folder / "scale3.pt")
    script(Classifier(), folder / "classifier.pt")
    script(Segmenter(), folder / "segmenter.pt")
    script(Detector(), folder / "detector.pt")
    script(Text(), folder / "text.pt")
    words = "the cat is not here do i am ca n t".split()
    vocabulary = collections.defaultdict(int, {word: at + 1 for at, word in enumerate(words)})
    torch.save(vocabulary, folder / "source_vocab.pt")
    torch.save({"factor": torch.tensor(5.0)}, folder / "eager.pt")
    (folder / "scale.py").write_text(EAGER)
    (folder / "index_to_name.json").write_text(json.dumps({str(i): f"class {i}" for i in range(6)}))
    (folder / "model-config.yaml").write_text("offset: 7\nhandler:\n  profile: true\n")
    for name, pixel in (("red.png", (200, 30, 40)), ("blue.png", (20, 30, 220))):
        image = Image.new("RGB", (300, 260), pixel)
        image.paste((0, 255, 0), (30, 30, 120, 200))
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        (folder / name).write_bytes(buffer.getvalue())
    names = folder / "index_to_name.json"
    config = folder / "model-config.yaml"
    archive(folder, "rows", ROWS, serialized_file=folder / "scale.pt", config_file=config)
    archive(folder, "rows3", ROWS, version="3.0", serialized_file=folder / "scale3.pt")
    archive(folder, "eager", ROWS, serialized_file=folder / "eager.pt", model_file=folder / "scale.py")
    archive(folder, "plain", PLAIN, extra_files=names, config_file=config)
    archive(
        folder, "classifier", "image_classifier", serialized_file=folder / "classifier.pt", extra_files=names
    )
    archive(folder, "segmenter", "image_segmenter", serialized_file=folder / "segmenter.pt")
    archive(folder, "detector", "object_detector", serialized_file=folder / "detector.pt", extra_files=names)
    extra = f"{names},{folder / 'source_vocab.pt'}"
    archive(folder, "text", "text_classifier", serialized_file=folder / "text.pt", extra_files=extra)
    archive(folder, "stream", STREAM)
    archive(folder, "slow", SLOW)
    archive(folder, "broken", BROKEN)


if __name__ == "__main__":
    main()
