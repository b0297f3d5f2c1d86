"""Asks through KServe's client over HTTP, protocols V1 and V2, and checks each answer. argv: address."""

import asyncio
import sys

import httpx
import numpy
from kserve import InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig
from kserve.protocol.infer_type import RequestedOutput

base = "http://" + sys.argv[1]


def request(arrays, binary, model="simple", outputs=None):
    inputs = []
    for name, array in arrays.items():
        datatype = {"i4": "INT32", "f4": "FP32", "f8": "FP64", "i8": "INT64", "f2": "FP16"}[
            array.dtype.str[1:]
        ]
        tensor = InferInput(name, list(array.shape), datatype)
        tensor.set_data_from_numpy(array, binary_data=binary)
        inputs.append(tensor)
    return InferRequest(model_name=model, infer_inputs=inputs, request_id="k1", request_outputs=outputs)


async def second():
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    assert await client.is_server_live(base) and await client.is_server_ready(base)
    assert await client.is_model_ready(base, "simple")
    assert not await client.is_model_ready(base, "nothing")
    arrays = {name: numpy.arange(32, dtype=numpy.int32).reshape(2, 16) for name in ("INPUT0", "INPUT1")}
    for binary in (True, False):
        for outputs in (None, [RequestedOutput("OUTPUT1", {"binary_data": binary})]):
            got = await client.infer(base, request(arrays, binary, outputs=outputs), model_name="simple")
            assert got.id == "k1" and got.model_name == "simple", got
            assert len(got.outputs) == (2 if outputs is None else 1), got
            assert numpy.array_equal(got.outputs[-1].as_numpy(), numpy.zeros((2, 16), numpy.int32)), got
    for array in (numpy.array([0.1, numpy.nan], numpy.float32), numpy.array([2**62, -1], numpy.int64)):
        for binary in (True, False):
            got = await client.infer(
                base, request({"INPUT0": array}, binary, "identity"), model_name="identity"
            )
            assert numpy.array_equal(got.outputs[0].as_numpy(), array, equal_nan=array.dtype.kind == "f"), (
                array,
                binary,
                got,
            )
    half = numpy.array([1.5, -2], numpy.float16)
    outputs = [RequestedOutput("OUTPUT0", {"binary_data": True})]
    got = await client.infer(
        base, request({"INPUT0": half}, True, "identity", outputs), model_name="identity"
    )
    assert numpy.array_equal(got.outputs[0].as_numpy(), half), got
    text = {"inputs": [{"name": "INPUT0", "shape": [2], "datatype": "BYTES", "data": ["gr\u00fcn", ""]}]}
    got = await client.infer(base, text, model_name="group/identity")
    assert got.outputs[0].data == ["gr\u00fcn", ""], got
    try:
        await client.infer(base, request({"INPUT0": arrays["INPUT0"]}, True), model_name="simple")
    except httpx.HTTPStatusError as error:
        assert error.response.status_code == 400 and "'INPUT1' is missing" in str(error), error
    else:
        raise AssertionError("a missing input is accepted")


async def first():
    client = InferenceRESTClient(RESTConfig(protocol="v1"))
    assert await client.is_model_ready(base, "rows")
    try:
        await client.is_model_ready(base, "nothing")
    except httpx.HTTPStatusError as error:
        assert error.response.status_code == 404, error
    else:
        raise AssertionError("an unknown model is ready")
    got = await client.infer(base, {"instances": [[1, 2], [3, 4]]}, model_name="rows")
    assert got == {"predictions": [3, 7]}, got
    got = await client.infer(base, {"instances": [{"a": 1}]}, model_name="free")
    assert got == {"predictions": [{"a": 1}]}, got
    try:
        await client.infer(base, {"rows": [[1, 2]]}, model_name="rows")
    except httpx.HTTPStatusError as error:
        assert error.response.status_code == 400 and "instances" in str(error), error
    else:
        raise AssertionError("a body without instances is accepted")


asyncio.run(second())
print("V2 passed")
asyncio.run(first())
print("V1 passed")
