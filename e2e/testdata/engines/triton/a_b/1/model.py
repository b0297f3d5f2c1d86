"""The sum of two inputs, and whether it is above 10."""

import numpy
import triton_python_backend_utils as pb


class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            a, b = (pb.get_input_tensor_by_name(request, name).as_numpy() for name in "ab")
            flag = numpy.array([(a + b).sum() > 10])
            answers.append(pb.InferenceResponse([pb.Tensor("flag", flag), pb.Tensor("sum", a + b)]))
        return answers
