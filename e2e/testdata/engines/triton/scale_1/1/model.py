"""Twice the input."""

import triton_python_backend_utils as pb


class TritonPythonModel:
    def execute(self, requests):
        return [
            pb.InferenceResponse([pb.Tensor("y", 2 * pb.get_input_tensor_by_name(request, "x").as_numpy())])
            for request in requests
        ]
