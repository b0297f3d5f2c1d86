"""Texts in capital letters."""

import numpy
import triton_python_backend_utils as pb


class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            words = pb.get_input_tensor_by_name(request, "text").as_numpy()
            loud = numpy.array([w.decode().upper().encode() for w in words], dtype=object)
            answers.append(pb.InferenceResponse([pb.Tensor("loud", loud)]))
        return answers
