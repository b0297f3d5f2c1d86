"""As many messages as asked for, one by one."""

import numpy
import triton_python_backend_utils as pb


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            for i in range(int(pb.get_input_tensor_by_name(request, "n").as_numpy()[0])):
                token = pb.Tensor("token", numpy.array([i], dtype=numpy.int32))
                sender.send(pb.InferenceResponse([token]))
            sender.send(flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
