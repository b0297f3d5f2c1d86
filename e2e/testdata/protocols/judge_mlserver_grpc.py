"""Asks with MLServer's gRPC messages, codecs and service about models, and checks answers. argv: address."""

import sys

import grpc
import numpy
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.grpc import dataplane_pb2, dataplane_pb2_grpc, model_repository_pb2, model_repository_pb2_grpc
from mlserver.grpc.converters import ModelInferRequestConverter, ModelInferResponseConverter
from mlserver.types import InferenceRequest

channel = grpc.insecure_channel(sys.argv[1])
stub = dataplane_pb2_grpc.GRPCInferenceServiceStub(channel)
array = numpy.arange(32, dtype=numpy.int32).reshape(2, 16)
for raw in (False, True):
    inputs = [NumpyCodec.encode_input(name, array) for name in ("INPUT0", "INPUT1")]
    request = ModelInferRequestConverter.from_types(
        InferenceRequest(id="m1", inputs=inputs), model_name="simple", model_version=None, use_raw=raw
    )
    answer = ModelInferResponseConverter.to_types(stub.ModelInfer(request))
    assert answer.id == "m1" and answer.model_name == "simple", answer
    assert numpy.array_equal(NumpyCodec.decode_output(answer.outputs[0]), 2 * array), answer
    texts = InferenceRequest(inputs=[StringCodec.encode_input("INPUT0", ["a", "gr\u00fcn"])])
    request = ModelInferRequestConverter.from_types(
        texts, model_name="identity", model_version=None, use_raw=raw
    )
    answer = ModelInferResponseConverter.to_types(stub.ModelInfer(request))
    assert StringCodec.decode_output(answer.outputs[0]) == ["a", "gr\u00fcn"], answer

assert stub.ModelMetadata(dataplane_pb2.ModelMetadataRequest(name="simple")).inputs[0].datatype == "INT32"
models = model_repository_pb2_grpc.ModelRepositoryServiceStub(channel)
index = models.RepositoryIndex(model_repository_pb2.RepositoryIndexRequest(ready=True))
assert any(model.name == "simple" and model.state == "READY" for model in index.models), index
for change in (
    lambda: models.RepositoryModelLoad(model_repository_pb2.RepositoryModelLoadRequest(model_name="simple")),
    lambda: models.RepositoryModelUnload(
        model_repository_pb2.RepositoryModelUnloadRequest(model_name="simple")
    ),
):
    try:
        change()
    except grpc.RpcError as failed:
        assert (
            failed.code() == grpc.StatusCode.PERMISSION_DENIED
            and "cannot be changed here" in failed.details()
        ), failed
    else:
        raise AssertionError("a change is not refused")
