"""Asks through NVIDIA's client over gRPC, in both of its forms, and checks each answer. argv: address."""

import asyncio
import queue
import sys

import grpc
import numpy
import tritonclient.grpc as blocking
import tritonclient.grpc.aio as waiting
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

address = sys.argv[1]


def inputs_of(arrays):
    made = []
    for name, array in arrays.items():
        tensor = blocking.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array)
        made.append(tensor)
    return made


def same(got, want, what):
    assert got is not None and got.shape == want.shape and got.dtype == want.dtype, (what, got, want)
    assert numpy.array_equal(got, want, equal_nan=want.dtype.kind == "f"), (what, got, want)


ARRAYS = {
    "BOOL": numpy.array([[True, False]]),
    "UINT8": numpy.array([0, 255], numpy.uint8),
    "UINT16": numpy.array([0, 65535], numpy.uint16),
    "UINT32": numpy.array([2**32 - 1], numpy.uint32),
    "UINT64": numpy.array([2**64 - 1], numpy.uint64),
    "INT8": numpy.array([-128, 127], numpy.int8),
    "INT16": numpy.array([[[-32768]]], numpy.int16),
    "INT32": numpy.array([-(2**31), 2**31 - 1], numpy.int32),
    "INT64": numpy.array([-(2**63), 2**63 - 1], numpy.int64),
    "FP16": numpy.array([1.5, numpy.inf, numpy.nan], numpy.float16),
    "FP32": numpy.array([[0.1, -numpy.inf], [numpy.nan, 1e-45]], numpy.float32),
    "FP64": numpy.array([0.1, numpy.inf, numpy.nan, 5e-324, 1.7976931348623157e308]),
    "BYTES": numpy.array([b"", "gr\u00fcn \U0001f600".encode(), b"\xff\x00"], object),
    "empty": numpy.empty((0, 4), numpy.float32),
    "5 MB": numpy.random.default_rng(1).random((64, 10000)),
}

TWO = {name: numpy.arange(32, dtype=numpy.int32).reshape(2, 16) for name in ("INPUT0", "INPUT1")}


def every_datatype(client):
    for name, array in ARRAYS.items():
        for compression in (None, "gzip"):
            result = client.infer(
                "identity", inputs_of({"INPUT0": array}), request_id="r 1", compression_algorithm=compression
            )
            same(result.as_numpy("OUTPUT0"), array, name)
            assert result.get_response().id == "r 1"


def typed_contents():
    """The form of clients without numpy, which is not the one of this client's own requests."""
    stub = service_pb2_grpc.GRPCInferenceServiceStub(grpc.insecure_channel(address))
    request = service_pb2.ModelInferRequest(model_name="simple")
    for name in ("INPUT0", "INPUT1"):
        tensor = request.inputs.add(name=name, datatype="INT32", shape=[1, 16])
        tensor.contents.int_contents.extend(range(16))
    answer = stub.ModelInfer(request)
    same(
        numpy.frombuffer(answer.raw_output_contents[0], numpy.int32),
        2 * numpy.arange(16, dtype=numpy.int32),
        "typed",
    )


def outputs(client):
    both = client.infer("simple", inputs_of(TWO))
    same(both.as_numpy("OUTPUT0"), 2 * TWO["INPUT0"], "both")
    one = client.infer("simple", inputs_of(TWO), outputs=[blocking.InferRequestedOutput("OUTPUT1")])
    assert len(one.get_response().outputs) == 1
    same(one.as_numpy("OUTPUT1"), 0 * TWO["INPUT0"], "one")
    best = client.infer(
        "simple", inputs_of(TWO), outputs=[blocking.InferRequestedOutput("OUTPUT0", class_count=2)]
    )
    assert best.as_numpy("OUTPUT0").tolist() == [
        [b"30.000000:15", b"28.000000:14"],
        [b"62.000000:15", b"60.000000:14"],
    ]


def described(client):
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("simple") and client.is_model_ready("group/identity")
    assert client.get_server_metadata().name == "clearml-serving"
    metadata = client.get_model_metadata("simple")
    assert [tensor.name for tensor in metadata.inputs] == ["INPUT0", "INPUT1"] and list(
        metadata.inputs[0].shape
    ) == [-1, 16]
    config = client.get_model_config("simple").config
    assert config.max_batch_size > 1 and list(config.input[0].dims) == [16], config
    statistics = client.get_inference_statistics("simple").model_stats[0]
    assert statistics.inference_stats.success.count > 0 and statistics.inference_stats.compute_infer.ns > 0, (
        statistics
    )
    assert any(
        model.name == "simple" and model.state == "READY"
        for model in client.get_model_repository_index().models
    )
    assert client.get_model_metadata("simple", as_json=True)["inputs"][0]["name"] == "INPUT0"


def refused(what, code, text, call):
    try:
        call()
    except InferenceServerException as failed:
        assert failed.status() == "StatusCode." + code and text in failed.message(), (what, failed)
    else:
        raise AssertionError(what + " is not refused")


def refusals(client):
    short = {"INPUT0": TWO["INPUT0"][:, :15], "INPUT1": TWO["INPUT1"]}
    refused("a shape", "INVALID_ARGUMENT", "INPUT0", lambda: client.infer("simple", inputs_of(short)))
    refused(
        "a missing input",
        "INVALID_ARGUMENT",
        "INPUT1",
        lambda: client.infer("simple", inputs_of({"INPUT0": TWO["INPUT0"]})),
    )
    floats = {name: array.astype(numpy.float32) for name, array in TWO.items()}
    refused("a datatype", "INVALID_ARGUMENT", "FP32", lambda: client.infer("simple", inputs_of(floats)))
    refused(
        "an output",
        "INVALID_ARGUMENT",
        "nothing",
        lambda: client.infer("simple", inputs_of(TWO), outputs=[blocking.InferRequestedOutput("nothing")]),
    )
    refused("a model", "NOT_FOUND", "nobody", lambda: client.infer("nobody", inputs_of(TWO)))
    refused("its metadata", "NOT_FOUND", "nobody", lambda: client.get_model_metadata("nobody"))
    refused("a load", "PERMISSION_DENIED", "cannot be changed", lambda: client.load_model("simple"))
    refused("shared memory", "UNIMPLEMENTED", "SharedMemory", client.get_system_shared_memory_status)
    refused(
        "a deadline",
        "DEADLINE_EXCEEDED",
        "",
        lambda: client.infer("slow", inputs_of(TWO), client_timeout=0.2),
    )
    refused(
        "a timeout",
        "DEADLINE_EXCEEDED",
        "its limit is 200ms",
        lambda: client.infer("slow", inputs_of(TWO), timeout=200_000),
    )


def streams(client):
    answers = queue.Queue()
    client.start_stream(callback=lambda result, error: answers.put((result, error)))
    for n in range(20):
        client.async_stream_infer(
            "simple", inputs_of({name: array + n for name, array in TWO.items()}), request_id=str(n)
        )
    for n in range(20):
        result, error = answers.get(timeout=120)
        assert error is None and result.get_response().id == str(n), (error, n)
        same(result.as_numpy("OUTPUT0"), 2 * (TWO["INPUT0"] + n), "a stream")
        assert result.get_response().parameters["triton_final_response"].bool_param
    client.async_stream_infer("nobody", inputs_of(TWO))
    result, error = answers.get(timeout=120)
    assert result is None and "nobody" in error.message(), error
    client.async_stream_infer(
        "pieces",
        inputs_of({"body": numpy.array([b'{"count": 3}'], object)}),
        enable_empty_final_response=True,
    )
    pieces = []
    while True:
        result, error = answers.get(timeout=120)
        assert error is None, error
        if result.get_response().parameters["triton_final_response"].bool_param:
            assert len(result.get_response().outputs) == 0
            break
        pieces.append(result.as_numpy("answer")[0])
    assert pieces == [b"piece 0\n", b"piece 1\n", b"piece 2\n"], pieces
    client.stop_stream()


def decoupled(client):
    answers = queue.Queue()
    client.start_stream(callback=lambda result, error: answers.put((result, error)))
    arrays = {
        "IN": numpy.array([4, 5, 6], numpy.int32),
        "DELAY": numpy.zeros(3, numpy.uint32),
        "WAIT": numpy.zeros(1, numpy.uint32),
    }
    client.async_stream_infer("repeat_int32", inputs_of(arrays), enable_empty_final_response=True)
    for want in (4, 5, 6):
        result, error = answers.get(timeout=120)
        assert error is None, error
        same(result.as_numpy("OUT"), numpy.array([want], numpy.int32), "a decoupled model")
        assert not result.get_response().parameters["triton_final_response"].bool_param
    result, error = answers.get(timeout=120)
    assert error is None and result.get_response().parameters["triton_final_response"].bool_param
    for value, want in ((1, 2), (2, 2), (3, 3 + 1007)):
        client.async_stream_infer(
            "simple_dyna_sequence",
            inputs_of({"INPUT": numpy.array([[value]], numpy.int32)}),
            sequence_id=1007,
            sequence_start=value == 1,
            sequence_end=value == 3,
        )
        result, error = answers.get(timeout=120)
        assert error is None, error
        same(result.as_numpy("OUTPUT"), numpy.array([[want]], numpy.int32), "a sequence")
    client.stop_stream()


def own_channels():
    kept = blocking.KeepAliveOptions(keepalive_time_ms=20_000, http2_max_pings_without_data=2)
    for given in ({"keepalive_options": kept}, {"channel_args": [("grpc.primary_user_agent", "judge")]}):
        with blocking.InferenceServerClient(address, **given) as client:
            same(client.infer("simple", inputs_of(TWO)).as_numpy("OUTPUT0"), 2 * TWO["INPUT0"], given)


async def waits():
    async with waiting.InferenceServerClient(address) as client:
        assert await client.is_server_live() and await client.is_model_ready("simple")
        results = await asyncio.gather(
            *(
                client.infer("simple", inputs_of({name: array + n for name, array in TWO.items()}))
                for n in range(50)
            )
        )
        for n, result in enumerate(results):
            same(result.as_numpy("OUTPUT0"), 2 * (TWO["INPUT0"] + n), "aio")

        async def requests():
            for n in range(10):
                yield {"model_name": "simple", "inputs": inputs_of(TWO), "request_id": str(n)}

        n = 0
        async for result, error in client.stream_infer(requests()):
            assert error is None and result.get_response().id == str(n), error
            n += 1
        assert n == 10, n
        task = asyncio.ensure_future(client.infer("simple", inputs_of(TWO)))
        await asyncio.sleep(0)
        task.cancel()
        assert (await client.infer("simple", inputs_of(TWO))).as_numpy("OUTPUT0") is not None


with blocking.InferenceServerClient(address) as client:
    every_datatype(client)
    outputs(client)
    described(client)
    refusals(client)
    streams(client)
    decoupled(client)
own_channels()
typed_contents()
asyncio.run(waits())
