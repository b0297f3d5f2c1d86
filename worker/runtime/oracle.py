"""An endpoint that also tells about its model: facts, an extract of it, and the answers of its other methods.

The Go side asks while it loads a model that it then computes itself, and compares the answers with its own. The
content type says what is asked; other requests are answered as usual.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from typing import Any

import engines
import tabular
from answer import JSON, Answer
from codec import encode_json
from endpoint import Endpoint
from tracebacks import describe

FACTS = "application/x-clearml-serving-facts"
EXTRACT = "application/x-clearml-serving-extract"
PROOF = "application/x-clearml-serving-proof"
ONNX = "application/x-clearml-serving-onnx"  # the file, of float64 if the body is "double"
RANGES = "application/x-clearml-serving-ranges"
METHOD = ";clearml-serving-method="  # behind application/json: answer by that method
PACKAGES = ("numpy", "scipy", "sklearn", "xgboost", "lightgbm", "pandas", "joblib", "orjson")
CONVERTERS = ("sklearn", "xgboost", "lightgbm", "numpy", "onnx", "skl2onnx", "onnxmltools")
PIECE = 1 << 20


class Oracle(Endpoint):
    """An Endpoint of a model engine that answers the questions of the Go side."""

    engine: engines.Engine
    name = ""
    code = ""  # the folder of the package nativemodel
    method = ""
    _proof: Any = None  # an open file
    _columns = 0  # of the extracted model

    def __init__(self, *steps: Any) -> None:
        super().__init__(*steps)
        self._log = _nowhere  # it is asked for what the model refuses
        warnings.simplefilter("ignore")

    def handle(self, body: Any, content_type: str, meta: dict[str, Any]) -> Answer:
        """Answer a question, or a request. Never raises."""
        ask = {
            FACTS: self._facts,
            EXTRACT: self._extract,
            PROOF: self._prove,
            ONNX: lambda: self._convert(bytes(body) == b"double"),
            RANGES: self._ranges,
        }.get(content_type)
        if ask is not None:
            return self._told(ask)
        kind, marked, method = content_type.partition(METHOD)
        if not marked:
            return super().handle(body, content_type, meta)
        usual = self.predict
        try:
            self.predict = engines.step_of(self.engine, self.model, method, self.name)
            return super().handle(body, kind, meta)
        except BaseException as error:
            return self.failed(error, meta, kind)
        finally:
            self.predict = usual

    def _told(self, tell: Any) -> Answer:
        try:
            return tell()
        except BaseException as error:
            refused = type(error).__name__ == "RefusedError"
            text = str(error) if refused else describe(error)
            return Answer(422 if refused else 500, JSON, encode_json({"detail": text}), error_kind="value")

    def _facts(self) -> Answer:
        """Tell the columns of records, the releases of the packages, and the rows that are taken as float32."""
        told: dict[str, Any] = {
            "releases": {
                name: str(getattr(sys.modules[name], "__version__", "")) for name in PACKAGES if name in sys.modules
            },
        }
        columns = tabular.columns_of(self.model)
        if columns is not None and not columns.refusal:
            told["names"] = columns.names
            told["strict"] = columns.strict
            told["categories"] = {name: list(values) for name, values in columns.categories.items()}
        if "lightgbm" in sys.modules:
            told["narrow"] = importlib.import_module("nativemodel.lgbm").narrows(self.model, self._columns)
        return Answer(200, JSON, encode_json(told))

    def _extract(self) -> Answer:
        """Tell the file of the model; the proof is made with it."""
        models = self._package("models")
        folder = tempfile.mkdtemp(prefix="native-")
        try:
            paths = [os.path.join(folder, name) for name in ("model", "proof")]
            self._columns = len(models.extract(self.model, paths[0], paths[1])["columns"])
            file, self._proof = (open(path, "rb") for path in paths)  # noqa: SIM115 - their streams close them
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return self.answer(_pieces(file))

    def _prove(self) -> Answer:
        return self.answer(_pieces(self._proof))

    def _convert(self, double: bool) -> Answer:
        """Tell the model as ONNX."""
        folder = tempfile.mkdtemp(prefix="onnx-")
        try:
            path = os.path.join(folder, "model")
            self._package("convert").convert(self.model, self.method, path, double)
            file = open(path, "rb")  # noqa: SIM115 - its stream closes it
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return self.answer(_pieces(file))

    def _ranges(self) -> Answer:
        """Tell of which numbers rows are that show differences."""
        told = {
            "ranges": self._package("convert").ranges(self.model),
            "model": type(self.model).__name__,
            "releases": {name: str(sys.modules[name].__version__) for name in CONVERTERS if name in sys.modules},
        }
        return Answer(200, JSON, encode_json(told))

    def _package(self, name: str) -> Any:
        if self.code not in sys.path:
            sys.path.insert(0, self.code)
        return importlib.import_module(f"nativemodel.{name}")


def _nowhere(_level: str, _text: str, _key: str = "") -> None:
    """Log nothing."""


def _pieces(file: Any) -> Iterator[bytes]:
    with file:
        while piece := file.read(PIECE):
            yield piece
