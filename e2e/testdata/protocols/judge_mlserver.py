"""Asks with MLServer's codecs, and checks what they make of the answers. argv: address."""

import sys
import urllib.request
from datetime import datetime

import numpy
import pandas
from mlserver.codecs import (
    Base64Codec,
    DatetimeCodec,
    NumpyCodec,
    NumpyRequestCodec,
    PandasCodec,
    StringCodec,
    StringRequestCodec,
)
from mlserver.types import InferenceRequest, InferenceResponse

base = "http://" + sys.argv[1] + "/v2/models/"


def ask(model, request):
    body = request.model_dump_json().encode()
    with urllib.request.urlopen(
        urllib.request.Request(base + model + "/infer", body, {"Content-Type": "application/json"})
    ) as answer:
        return InferenceResponse.model_validate_json(answer.read())


def echoed(model, tensor):
    (output,) = ask(model, InferenceRequest(inputs=[tensor])).outputs
    return output


for array in (
    numpy.array([[1.5, 2.5]]),
    numpy.array([1, -2]),
    numpy.array([True, False]),
    numpy.array([[numpy.nan, 0.1]], numpy.float32),
):
    got = NumpyCodec.decode_output(echoed("identity", NumpyCodec.encode_input("INPUT0", array)))
    got = got.reshape(array.shape)  # the codec writes [n] as [n, 1]
    assert numpy.array_equal(got, array, equal_nan=array.dtype.kind == "f") and got.dtype == array.dtype, (
        got,
        array,
    )
print("np passed")

words = ["gr\u00fcn", "", "\U0001f600"]
output = echoed("words", StringCodec.encode_input("text", words))
assert StringCodec.decode_output(output) == [word.upper() for word in words], output
print("str passed")

pieces = [b"\x00\xff", b"plain"]
output = echoed("sizes", Base64Codec.encode_input("data", pieces))
assert NumpyCodec.decode_output(output).tolist() == [[2], [5]] or NumpyCodec.decode_output(
    output
).tolist() == [2, 5], output
print("base64 passed")

moments = [datetime(2026, 11, 30, 12, 0), datetime(1999, 12, 31, 23, 59, 59)]
output = echoed("years", DatetimeCodec.encode_input("when", moments))
assert NumpyCodec.decode_output(output).reshape(-1).tolist() == [2026, 1999], output
print("datetime passed")

frame = pandas.DataFrame(
    {"price": [1.5, 2.5], "count": [2, 4], "name": pandas.Series(["a", "b"], dtype=object)}
)
answer = ask("table", PandasCodec.encode_request(frame))
got = {output.name: output for output in answer.outputs}
assert NumpyCodec.decode_output(got["total"]).reshape(-1).tolist() == [3.0, 10.0], answer
assert StringCodec.decode_output(got["label"]) == ["A", "B"], answer
print("pd passed")

answer = ask("free", NumpyRequestCodec.encode_request(numpy.array([[1, 2], [3, 4]])))
assert NumpyRequestCodec.decode_response(answer).tolist() == [[1, 2], [3, 4]], answer
answer = ask("words", StringRequestCodec.encode_request(words))
assert StringRequestCodec.decode_response(answer) == [word.upper() for word in words], answer
print("request codecs passed")
