"""A model of Triton's Python backend: three times its input."""

import numpy as np
import triton_python_backend_utils as backend

FACTOR = 3


class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            x = backend.get_input_tensor_by_name(request, "x").as_numpy()
            answers.append(backend.InferenceResponse([backend.Tensor("y", (FACTOR * x).astype(np.float32))]))
        return answers
