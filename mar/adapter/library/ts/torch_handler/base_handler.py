"""The base of handlers: loads TorchScript, or a class with its weights, and predicts with tensors."""

from __future__ import annotations

import abc
import importlib
import logging
import os
import time
from typing import Any

import torch

from ts.handler_utils.timer import timed
from ts.labels import list_classes_from_module, load_label_mapping

logger = logging.getLogger(__name__)


class BaseHandler(abc.ABC):  # noqa: B024 - as in TorchServe
    """Loads the model of the archive; subclasses replace the steps that differ."""

    def __init__(self) -> None:
        self.model: Any = None
        self.mapping: dict[str, str] | None = None
        self.device: Any = None
        self.initialized = False
        self.context: Any = None
        self.model_pt_path: str | None = None
        self.manifest: Any = None
        self.map_location: str | None = None
        self.explain = False
        self.target = 0
        self.profiler_args: dict[str, Any] = {}

    def initialize(self, context: Any) -> None:
        """Load the model and the labels."""
        properties = context.system_properties
        self.model_yaml_config = context.model_yaml_config
        self.manifest = context.manifest
        gpu = properties.get("gpu_id")
        if gpu is not None and torch.cuda.is_available():
            self.map_location, self.device = "cuda", torch.device(f"cuda:{gpu}")
        elif gpu is not None and _has_mps():
            self.map_location, self.device = "mps", torch.device("mps")
        else:
            self.map_location, self.device = "cpu", torch.device("cpu")
        folder, model = properties["model_dir"], self.manifest["model"]
        if model.get("serializedFile"):
            self.model_pt_path = os.path.join(folder, model["serializedFile"])
        path = self.model_pt_path or ""
        if model.get("modelFile"):
            self.model = self._load_pickled_model(folder, model["modelFile"], self.model_pt_path)
            self.model.to(self.device)
            self.model.eval()
        elif path.endswith(".pt"):
            self.model = self._load_torchscript_model(path)
            self.model.eval()
        elif path.endswith(".onnx"):
            self.model = _onnx_session(path)
        else:
            found = os.path.basename(path) or "no serialized file"
            raise RuntimeError(
                f"the archive has no model that this handler loads ({found}): "
                "it loads .pt (TorchScript, or weights with a model file) and .onnx"
            )
        self._compile()
        self.mapping = load_label_mapping(os.path.join(folder, "index_to_name.json"))
        self.initialized = True

    def _load_torchscript_model(self, model_pt_path: str) -> Any:
        return torch.jit.load(model_pt_path, map_location=self.device)

    def _load_pickled_model(self, model_dir: str, model_file: str, model_pt_path: str | None) -> Any:
        if not os.path.isfile(os.path.join(model_dir, model_file)):
            raise RuntimeError(
                f"the archive has no file {model_file}, which its manifest names as the model's class"
            )
        classes = list_classes_from_module(importlib.import_module(model_file.partition(".")[0]))
        if len(classes) != 1:
            names = ", ".join(one.__name__ for one in classes) or "none"
            raise ValueError(f"{model_file} needs exactly one class, the model's; its classes: {names}")
        model = classes[0]()
        if model_pt_path:
            model.load_state_dict(torch.load(model_pt_path, map_location=self.device))
        return model

    def _compile(self) -> None:
        """Compile the model, if its configuration asks for it and this torch can."""
        wanted = (self.model_yaml_config or {}).get("pt2")
        if not wanted or not hasattr(torch, "compile"):
            return
        options = {"backend": wanted} if isinstance(wanted, str) else dict(wanted)
        if "export" in options:
            return
        if "compile" in options:
            options = dict(options["compile"])
            if not options.pop("enable", False):
                return
        try:
            self.model = torch.compile(self.model, **options)
        except Exception:
            logger.warning("the model is served without torch.compile", exc_info=True)

    @timed
    def preprocess(self, data: Any) -> Any:
        """Make a tensor of the inputs."""
        return torch.as_tensor(data, device=self.device)

    @timed
    def inference(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        """Predict."""
        with torch.inference_mode():
            return self.model(data.to(self.device), *args, **kwargs)

    @timed
    def postprocess(self, data: Any) -> Any:
        """Make the answers, one for each request."""
        return data.tolist()

    def handle(self, data: Any, context: Any) -> Any:
        """Answer requests."""
        begun = time.perf_counter()
        self.context = context
        answers = self.postprocess(self.inference(self.preprocess(data)))
        if context.metrics is not None:
            context.metrics.add_time(
                "HandlerTime", round((time.perf_counter() - begun) * 1000, 2), None, "ms"
            )
        return answers

    def describe_handle(self) -> Any:
        """Describe the model. Endpoints have no such request."""
        return None


def _has_mps() -> bool:
    mps = getattr(torch.backends, "mps", None)
    return mps is not None and mps.is_available()


def _onnx_session(path: str) -> Any:
    import onnxruntime

    wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
    return onnxruntime.InferenceSession(
        path, providers=[p for p in wanted if p in onnxruntime.get_available_providers()]
    )
