"""The handler of models without one of their own: tensors as JSON.

A request is a JSON list, for the model's only input, or an object with a list for each input. Requests of a
batch are joined along their rows. The answer is a list, or an object with the outputs' names.
"""

import json
import os

import torch
from ts.torch_handler.base_handler import BaseHandler
from ts.utils.util import PredictionException


class TensorHandler(BaseHandler):
    """Predicts with tensors."""

    def initialize(self, context):
        """Load the model and the description of its tensors."""
        super().initialize(context)
        with open(
            os.path.join(context.system_properties["model_dir"], "tensors.json"), encoding="utf-8"
        ) as file:
            tensors = json.load(file)
        self.inputs = [(tensor["name"], getattr(torch, tensor["type"])) for tensor in tensors["inputs"]]
        self.outputs = tensors["outputs"]

    def tensors_of(self, row):
        """Return the inputs of one request in their order."""
        body = row.get("body", row.get("data"))
        if isinstance(body, (bytes, bytearray)):
            try:
                body = json.loads(body)
            except ValueError as error:
                raise PredictionException(f"the request is no JSON: {error}", 400) from error
        if not isinstance(body, dict):
            body = {self.inputs[0][0]: body}
        missing = [name for name, _ in self.inputs if name not in body]
        if missing:
            raise PredictionException(f"the request has no input {', '.join(missing)}", 400)
        try:
            return [torch.as_tensor(body[name], dtype=kind, device=self.device) for name, kind in self.inputs]
        except (TypeError, ValueError, RuntimeError) as error:
            raise PredictionException(f"the request is no tensor: {error}", 400) from error

    def handle(self, data, context):
        """Answer requests."""
        requests = [self.tensors_of(row) for row in data]
        rows = [tensors[0].shape[0] if tensors[0].dim() else 1 for tensors in requests]
        with torch.inference_mode():
            if len(requests) == 1:
                return [self.answer(self.model(*requests[0]))]
            try:
                joined = [torch.cat(parts) for parts in zip(*requests)]
            except RuntimeError as error:
                raise PredictionException(
                    f"the requests of a batch have different shapes: {error}", 400
                ) from error
            outputs = self.model(*joined)
        outputs = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
        parts = [output.split(rows) for output in outputs]
        return [self.answer([part[i] for part in parts]) for i in range(len(requests))]

    def answer(self, outputs):
        """Return the answer of one request."""
        outputs = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
        if len(outputs) == 1:
            return outputs[0].tolist()
        names = self.outputs + [f"output-{i}" for i in range(len(self.outputs), len(outputs))]
        return {name: output.tolist() for name, output in zip(names, outputs)}
