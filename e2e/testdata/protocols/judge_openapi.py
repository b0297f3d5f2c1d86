"""Asks through the client that was generated from the protocol's own OpenAPI document. argv: address."""

import asyncio
import sys

from open_inference.openapi.client import AsyncOpenInferenceClient, OpenInferenceClient
from open_inference.openapi.core.api_error import ApiError
from open_inference.openapi.types import InferenceRequest, RequestInput, RequestOutput

base = "http://" + sys.argv[1]


def request(**change):
    inputs = [
        RequestInput(
            **{"name": name, "shape": [1, 16], "datatype": "INT32", "data": [list(range(16))], **change}
        )
        for name in ("INPUT0", "INPUT1")
    ]
    return InferenceRequest(id="o1", inputs=inputs, outputs=[RequestOutput(name="OUTPUT0")])


def check(answer):
    (output,) = answer.outputs
    assert (answer.id, answer.model_name, output.name, output.datatype, output.shape) == (
        "o1",
        "simple",
        "OUTPUT0",
        "INT32",
        [1, 16],
    ), answer
    assert list(output.data.__root__ if hasattr(output.data, "__root__") else output.data) == [
        2 * n for n in range(16)
    ], answer


def blocking():
    client = OpenInferenceClient(base_url=base)
    client.check_server_liveness()
    client.check_server_readiness()
    client.check_model_readiness("simple")
    client.check_model_version_readiness("simple", "1")
    assert client.read_server_metadata().name == "clearml-serving"
    assert client.read_model_metadata("simple").inputs[1].name == "INPUT1"
    assert client.read_model_version_metadata("simple", "1").name == "simple"
    check(client.model_infer("simple", request=request()))
    check(client.model_version_infer("simple", "1", request=request()))
    for call, status in (
        (lambda: client.model_infer("simple", request=request(shape=[1, 17])), 400),
        (lambda: client.model_infer("nothing", request=request()), 404),
    ):
        try:
            call()
        except ApiError as error:
            assert error.status_code == status and error.body["error"], error
        else:
            raise AssertionError(f"no error {status}")


async def waiting():
    client = AsyncOpenInferenceClient(base_url=base)
    await client.check_model_readiness("simple")
    for answer in await asyncio.gather(*(client.model_infer("simple", request=request()) for _ in range(10))):
        check(answer)


blocking()
asyncio.run(waiting())
print("passed")
