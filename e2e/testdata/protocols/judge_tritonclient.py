"""Asks through NVIDIA's client over HTTP, in both of its forms, and checks each answer. argv: address."""

import asyncio
import json
import sys

import numpy
import tritonclient.http as blocking
import tritonclient.http.aio as waiting
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

address = sys.argv[1]


def inputs_of(arrays, binary, kind=blocking):
    made = []
    for name, array in arrays.items():
        tensor = kind.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
        made.append(tensor.set_data_from_numpy(array, binary_data=binary))
    return made


def same(got, want, what):
    if want.dtype == object and got.dtype == object:
        got = numpy.array([x.encode() if isinstance(x, str) else x for x in got.reshape(-1)], object).reshape(
            got.shape
        )
    assert got.shape == want.shape, (what, got, want)
    equal = numpy.array_equal(got, want, equal_nan=want.dtype.kind == "f")
    assert equal and got.dtype == want.dtype, (what, got, want)


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
    "BYTES": numpy.array([b"", "gr\u00fcn \U0001f600".encode(), b'"\\\n'], object),
    "large": numpy.arange(500000, dtype=numpy.float32).reshape(1000, 500),
    "empty": numpy.empty((0, 4), numpy.float32),
}


def every_datatype(client):
    for name, array in ARRAYS.items():
        for sent in (True, False):
            for received in (True, False):
                if name == "FP16" and not (sent and received):
                    continue  # it has no form in JSON
                outputs = [blocking.InferRequestedOutput("OUTPUT0", binary_data=received)]
                result = client.infer(
                    "identity", inputs_of({"INPUT0": array}, sent), outputs=outputs, request_id="r 1"
                )
                same(result.as_numpy("OUTPUT0"), array, (name, sent, received))
                assert result.get_response()["id"] == "r 1"
    raw = numpy.array([b"\xff\x00"], object)
    same(client.infer("identity", inputs_of({"INPUT0": raw}, True)).as_numpy("OUTPUT0"), raw, "bytes")


def compression(client):
    array = numpy.arange(100000, dtype=numpy.int32)
    for how in ("gzip", "deflate"):
        result = client.infer(
            "identity",
            inputs_of({"INPUT0": array}, True),
            request_compression_algorithm=how,
            response_compression_algorithm=how,
        )
        same(result.as_numpy("OUTPUT0"), array, how)


def refused(call, *words):
    try:
        call()
    except InferenceServerException as error:
        assert all(word in error.message() for word in words), (error, words)
        return error.status()
    raise AssertionError(f"nothing was refused: {words}")


def refusals(client):
    right = {name: numpy.zeros((1, 16), numpy.int32) for name in ("INPUT0", "INPUT1")}

    def ask(**other):
        return lambda: client.infer("simple", inputs_of({**right, **other}, True))

    assert (
        refused(
            lambda: client.infer("nothing", inputs_of(right, True)), "Request for unknown model", "nothing"
        )
        == "404"
    )
    assert refused(ask(INPUT0=numpy.zeros((1, 16), numpy.float32)), "'INPUT0'", "FP32", "INT32") == "400"
    assert refused(ask(INPUT0=numpy.zeros((1, 15), numpy.int32)), "'INPUT0'", "[1,15]", "[-1,16]") == "400"
    assert refused(ask(INPUT9=right["INPUT0"]), "'INPUT9'", "'INPUT0', 'INPUT1'") == "400"
    assert (
        refused(
            lambda: client.infer("simple", inputs_of({"INPUT0": right["INPUT0"]}, True)),
            "'INPUT1'",
            "missing",
        )
        == "400"
    )
    outputs = [blocking.InferRequestedOutput("OUTPUT9")]
    assert (
        refused(
            lambda: client.infer("simple", inputs_of(right, True), outputs=outputs), "'OUTPUT9'", "'OUTPUT0'"
        )
        == "400"
    )
    assert refused(lambda: client.load_model("simple"), "'simple'", "not allowed") == "403"
    assert refused(lambda: client.unload_model("simple"), "'simple'", "not allowed") == "403"


def descriptions(client):
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("simple") and client.is_model_ready("simple", "1")
    assert not client.is_model_ready("nothing") and not client.is_model_ready("simple", "2")
    assert "statistics" in client.get_server_metadata()["extensions"]
    metadata = client.get_model_metadata("simple")
    assert metadata["inputs"][0] == {"name": "INPUT0", "datatype": "INT32", "shape": [-1, 16]}, metadata
    config = client.get_model_config("simple")
    assert config["max_batch_size"] > 1 and config["input"][0] == {
        "name": "INPUT0",
        "data_type": "TYPE_INT32",
        "dims": [16],
    }, config
    index = {entry["name"]: entry for entry in client.get_model_repository_index()}
    assert index["simple"]["state"] == "READY", index
    before = client.get_inference_statistics("simple")["model_stats"][0]
    arrays = {name: numpy.ones((8, 16), numpy.int32) for name in ("INPUT0", "INPUT1")}
    client.infer("simple", inputs_of(arrays, True))
    after = client.get_inference_statistics("simple")["model_stats"][0]
    assert after["inference_count"] == before["inference_count"] + 8, (before, after)
    assert after["execution_count"] == before["execution_count"] + 1, (before, after)
    for part in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
        assert after["inference_stats"][part]["count"] == before["inference_stats"][part]["count"] + 1, (
            before,
            after,
        )
    assert {s["name"] for s in client.get_inference_statistics()["model_stats"]} >= {"simple", "identity"}


def classes(client):
    array = numpy.array([[0.25, 4.0, 1.0], [3.0, 2.0, 1.0]], numpy.float32)
    for binary in (True, False):
        outputs = [blocking.InferRequestedOutput("OUTPUT0", binary_data=binary, class_count=2)]
        got = client.infer("identity", inputs_of({"INPUT0": array}, True), outputs=outputs).as_numpy(
            "OUTPUT0"
        )
        want = numpy.array([[b"4.000000:1", b"1.000000:2"], [b"3.000000:0", b"2.000000:1"]], object)
        same(got, want, "classes")


def many_at_once(client):
    asked = []
    for number in range(40):
        arrays = {
            "INPUT0": numpy.full((1, 16), number, numpy.int32),
            "INPUT1": numpy.ones((1, 16), numpy.int32),
        }
        asked.append(client.async_infer("simple", inputs_of(arrays, number % 2 == 0)))
    for number, each in enumerate(asked):
        same(each.get_result().as_numpy("OUTPUT1"), numpy.full((1, 16), number - 1, numpy.int32), number)


def free_body(client):
    text = json.dumps({"x": [1, None], "y": "gr\u00fcn"})
    result = client.infer("free", inputs_of({"body": numpy.array([text], object)}, False))
    assert json.loads(result.as_numpy("answer")[0]) == json.loads(text)


def sequences(client):
    # The first answer of a sequence adds one, the last of a dynamic one adds its id.
    for name, last in (("simple_sequence", 3), ("simple_dyna_sequence", 3 + 1007)):
        for value, want in ((1, 2), (2, 2), (3, last)):
            got = client.infer(
                name,
                inputs_of({"INPUT": numpy.array([[value]], numpy.int32)}, value % 2 == 0),
                sequence_id=1007,
                sequence_start=value == 1,
                sequence_end=value == 3,
            )
            same(got.as_numpy("OUTPUT"), numpy.array([[want]], numpy.int32), name)


def texts(client):
    arrays = {
        "INPUT0": numpy.array([[str(n).encode() for n in range(16)]], object),
        "INPUT1": numpy.array([[b"1"] * 16], object),
    }
    for binary in (False, True):
        got = client.infer("simple_string", inputs_of(arrays, binary)).as_numpy("OUTPUT0")
        assert [int(text) for text in got[0]] == [n + 1 for n in range(16)], got


async def waiting_form():
    async with waiting.InferenceServerClient(address) as client:
        assert await client.is_server_ready() and await client.is_model_ready("identity")
        assert (await client.get_model_metadata("group/identity"))["name"] == "group/identity"
        for name, array in ARRAYS.items():
            result = await client.infer("group/identity", inputs_of({"INPUT0": array}, True, waiting))
            same(result.as_numpy("OUTPUT0"), array, name)
        arrays = {"INPUT0": numpy.full((1, 16), 7, numpy.int32), "INPUT1": numpy.ones((1, 16), numpy.int32)}
        results = await asyncio.gather(
            *(client.infer("simple", inputs_of(arrays, True, waiting)) for _ in range(20))
        )
        for result in results:
            same(result.as_numpy("OUTPUT0"), numpy.full((1, 16), 8, numpy.int32), "aio")
        try:
            await client.infer("nothing", inputs_of(arrays, True, waiting))
        except InferenceServerException as error:
            assert "Request for unknown model" in error.message()
        else:
            raise AssertionError("an unknown model answers")


def main():
    with blocking.InferenceServerClient(address, concurrency=8) as client:
        judges = (descriptions, every_datatype, compression, refusals, classes, many_at_once, free_body)
        for judge in (*judges, sequences, texts):
            judge(client)
            print(judge.__name__, "passed")
    asyncio.run(waiting_form())
    print("aio passed")


main()
