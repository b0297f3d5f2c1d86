"""Asks through the protocol's generated gRPC client, and checks each answer. argv: address."""

import struct
import sys

import grpc
from open_inference.grpc import protocol, service

stub = service.GRPCInferenceServiceStub(grpc.insecure_channel(sys.argv[1]))
assert (
    stub.ServerLive(protocol.ServerLiveRequest()).live
    and stub.ServerReady(protocol.ServerReadyRequest()).ready
)
assert stub.ModelReady(protocol.ModelReadyRequest(name="simple")).ready
assert stub.ServerMetadata(protocol.ServerMetadataRequest()).name == "clearml-serving"
metadata = stub.ModelMetadata(protocol.ModelMetadataRequest(name="simple"))
assert [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in metadata.inputs] == [
    ("INPUT0", "INT32", [-1, 16]),
    ("INPUT1", "INT32", [-1, 16]),
], metadata
request = protocol.ModelInferRequest(model_name="simple", id="1")
for name in ("INPUT0", "INPUT1"):
    tensor = request.inputs.add(name=name, datatype="INT32", shape=[1, 16])
    tensor.contents.int_contents.extend(range(16))
answer = stub.ModelInfer(request)
assert answer.id == "1" and [output.name for output in answer.outputs] == ["OUTPUT0", "OUTPUT1"], answer
assert struct.unpack("<16i", answer.raw_output_contents[0]) == tuple(range(0, 32, 2)), answer
