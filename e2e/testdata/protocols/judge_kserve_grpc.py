"""Asks through KServe's client over gRPC, and checks each answer. argv: address."""

import asyncio
import sys

import grpc
import numpy
from kserve import InferenceGRPCClient, InferInput, InferRequest
from kserve.protocol.infer_type import RequestedOutput


def request(arrays, raw, model="simple", outputs=None):
    inputs = []
    for name, array in arrays.items():
        tensor = InferInput(
            name, list(array.shape), {"i4": "INT32", "f4": "FP32", "i8": "INT64"}[array.dtype.str[1:]]
        )
        tensor.set_data_from_numpy(array, binary_data=raw)
        inputs.append(tensor)
    return InferRequest(model_name=model, infer_inputs=inputs, request_id="k1", request_outputs=outputs)


async def main():
    client = InferenceGRPCClient(url=sys.argv[1])
    assert (
        await client.is_server_live()
        and await client.is_server_ready()
        and await client.is_model_ready("simple")
    )
    arrays = {name: numpy.arange(32, dtype=numpy.int32).reshape(2, 16) for name in ("INPUT0", "INPUT1")}
    for raw in (True, False):
        for outputs in (None, [RequestedOutput("OUTPUT1")]):
            got = await client.infer(request(arrays, raw, outputs=outputs))
            assert (
                got.id == "k1"
                and got.model_name == "simple"
                and len(got.outputs) == (2 if outputs is None else 1)
            ), got
            assert numpy.array_equal(got.outputs[-1].as_numpy(), numpy.zeros((2, 16), numpy.int32)), got
        for array in (numpy.array([0.1, numpy.nan], numpy.float32), numpy.array([2**62, -1], numpy.int64)):
            got = await client.infer(request({"INPUT0": array}, raw, "identity"))
            assert numpy.array_equal(got.outputs[0].as_numpy(), array, equal_nan=array.dtype.kind == "f"), got
    text = InferInput("INPUT0", [2], "BYTES", data=["a", "gr\u00fcn"])
    got = await client.infer(InferRequest("identity", [text]))
    assert got.outputs[0].as_numpy().tolist() == [b"a", "gr\u00fcn".encode()], got
    try:
        await client.infer(request(arrays, True, "nobody"))
    except grpc.aio.AioRpcError as failed:
        assert failed.code() == grpc.StatusCode.NOT_FOUND and "nobody" in failed.details(), failed
    else:
        raise AssertionError("an unknown model is not refused")


asyncio.run(main())
