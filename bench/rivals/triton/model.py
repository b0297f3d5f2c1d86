"""A Triton model of the Python backend that calls ONNX Runtime, batch by batch."""

import json

import numpy as np
import triton_python_backend_utils as triton

import onnxruntime


class TritonPythonModel:
    def initialize(self, args: dict) -> None:
        config = json.loads(args["model_config"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        path = config["parameters"]["path"]["string_value"]
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0].name
        self.outputs = [output.name for output in self.session.get_outputs()]

    def execute(self, requests: list) -> list:
        rows = [triton.get_input_tensor_by_name(request, self.input).as_numpy() for request in requests]
        results = self.session.run(self.outputs, {self.input: np.concatenate(rows)})
        responses, at = [], 0
        for row in rows:
            part = slice(at, at + len(row))
            at += len(row)
            responses.append(
                triton.InferenceResponse(
                    [triton.Tensor(name, result[part]) for name, result in zip(self.outputs, results)]
                )
            )
        return responses
