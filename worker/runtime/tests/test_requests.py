"""What user code gets for a request body."""

import json
import math
import random
import sys

import pytest

import codec
from answer import RequestError
from codec import decode_request, is_json

JSON = "application/json"


@pytest.mark.parametrize(
    ("content_type", "body", "expected"),
    [
        (JSON, b'{"x0": 1, "x1": [2.5, null]}', {"x0": 1, "x1": [2.5, None]}),
        (JSON, b'"text"', b"text"),
        (JSON, '"gr\u00fc\u00df"'.encode(), "gr\u00fc\u00df".encode()),
        (JSON, b'"\\ud800"', b"\xed\xa0\x80"),
        (JSON, b"null", None),
        (JSON, b"[1, 2]", [1, 2]),
        (JSON, b"5", 5),
        (JSON, b"true", True),
        (JSON, b"", None),
        (JSON, b' \n{"a": 1}\r\n ', {"a": 1}),
        (JSON, b'{"a": 1, "a": 2}', {"a": 2}),
        (JSON, b"\xef\xbb\xbf{}", {}),
        (JSON, '{"a": 1}'.encode("utf-16"), {"a": 1}),
        ("", b'{"a": 1}', {"a": 1}),
        ("application/json; charset=utf-8", b"[]", []),
        ("Application/JSON", b"[]", []),
        ("application/vnd.api+json", b"[]", []),
        ("application/vnd.api+json;v=1", b"", None),
        ("application/x-www-form-urlencoded", b'{"a": 1}', {"a": 1}),
        ("Application/X-WWW-Form-Urlencoded; charset=UTF-8", b' \n[1, {"b": 2}]\n', [1, {"b": 2}]),
        ("application/x-www-form-urlencoded", b"a=1&b=%7B", b"a=1&b=%7B"),
        ("application/x-www-form-urlencoded", b"5", b"5"),
        ("application/x-www-form-urlencoded", b'"text"', b'"text"'),
        ("application/x-www-form-urlencoded", b"[INST] hello [/INST]", b"[INST] hello [/INST]"),
        ("application/x-www-form-urlencoded", b'{"a": 1} x', b'{"a": 1} x'),
        ("application/x-www-form-urlencoded", b"[" * 100_000, b"[" * 100_000),
        ("application/x-www-form-urlencoded", b"[\xff]", b"[\xff]"),
        ("text/plain", b'{"a": 1}', b'{"a": 1}'),
        ("image/png", b"\x89PNG\x00", b"\x89PNG\x00"),
        ("text/json", b"{}", b"{}"),
        ("image/png", b"", None),
    ],
)
def test_body_follows_its_content_type(content_type, body, expected):
    for given in (body, bytearray(body), memoryview(body)):
        value = decode_request(given, content_type)
        assert value == expected
        assert type(value) is type(expected)


def test_nan_and_infinity_are_accepted_in_a_request():
    value = decode_request(b"[NaN, Infinity, -Infinity]", JSON)
    assert math.isnan(value[0])
    assert value[1:] == [math.inf, -math.inf]


def test_raw_body_is_a_copy_of_the_buffer():
    buffer = bytearray(b"first")
    value = decode_request(memoryview(buffer), "image/png")
    buffer[:] = b"other"
    assert value == b"first"


@pytest.mark.parametrize(
    ("body", "position", "reason"),
    [
        (b"{", 1, "Expecting property name enclosed in double quotes"),
        (b'{"a": 1} x', 9, "Extra data"),
        (b"nope", 0, "Expecting value"),
        (b"   ", 3, "Expecting value"),
        (b'{"a": "\xff"}', 7, "invalid utf-8 at byte 7: invalid start byte"),
    ],
)
def test_broken_json_says_where(body, position, reason):
    with pytest.raises(RequestError) as caught:
        decode_request(body, JSON)
    assert caught.value.detail == [
        {
            "type": "json_invalid",
            "loc": ["body", position],
            "msg": "JSON decode error",
            "input": {},
            "ctx": {"error": reason},
        }
    ]


def test_a_body_without_content_type_that_is_no_json_says_which_header_to_send():
    for content_type in ("", " "):
        with pytest.raises(RequestError) as caught:
            decode_request(b"\x89PNG", content_type)
        assert "no Content-Type" in caught.value.detail[0]["ctx"]["error"]
        assert "Content-Type: application/octet-stream" in caught.value.detail[0]["ctx"]["error"]


@pytest.mark.parametrize("body", [b"[" * 200_000, b"1" * 100_000 + b"x", b'{"a":' * 100_000])
def test_hostile_json_is_refused(body):
    with pytest.raises(RequestError):
        decode_request(body, JSON)


def test_broken_json_is_a_422_and_no_log_line(process):
    endpoint = process("return data")
    answer = endpoint.ask(b"{")
    assert (answer.status, answer.error_kind) == (422, "request")
    assert json.loads(answer.body)["detail"][0]["type"] == "json_invalid"
    assert endpoint.host.lines == []


def test_any_bytes_give_a_value_or_a_request_error():
    source = random.Random(1)
    pieces = [b"{", b"}", b"[", b"]", b'"', b":", b",", b"1", b"-", b"e9", b"nul", b"\\u12", b"\xff", b"\x00", b" "]
    decoded = refused = 0
    for _ in range(20_000):
        body = b"".join(source.choices(pieces, k=source.randrange(12)))
        content_type = source.choice([JSON, "", "text/plain", "application/x+json", "/", ";", "\x00"])
        try:
            value = decode_request(memoryview(body), content_type)
        except RequestError as error:
            assert is_json(content_type)
            json.dumps(error.detail)
            refused += 1
        else:
            assert not isinstance(value, (str, memoryview))
            decoded += 1
    assert decoded > 1000
    assert refused > 1000


def _numbers(random_values):
    """A list of numbers as JSON texts write them, large enough for the quick way."""
    kinds = (
        lambda: repr(random_values.random()),
        lambda: repr(random_values.gauss(0, 1e-3)),
        lambda: repr(random_values.uniform(-1e300, 1e300)),
        lambda: f"{random_values.random():.30f}",
        lambda: f"{random_values.randrange(10**18)}.{random_values.randrange(10**25)}",
        lambda: f"{random_values.randrange(10**17)}e{random_values.randrange(-330, 280)}",
        lambda: str(random_values.randrange(-(10**17), 10**17)),
        lambda: random_values.choice(["0", "-0", "-0.0", "5e-324", "1E+2", "1.7976931348623157e308", "2.5E-7"]),
    )
    return [random_values.choice(kinds)() for _ in range(600)]


@pytest.mark.parametrize("seed", range(40))
def test_large_bodies_of_numbers_are_what_python_makes_of_them(seed, monkeypatch):
    pytest.importorskip("orjson")
    random_values = random.Random(seed)
    numbers = ", ".join(_numbers(random_values))
    body = f'{{"a": [{numbers}], "\\u00fc": {{"b": [[1], {numbers}]}}, "a": [{numbers}]}}'.encode()
    assert len(body) >= codec.NUMBERS_FROM
    monkeypatch.setattr(codec, "_scan", None)  # the quick way does it
    value = decode_request(body, JSON)
    assert repr(value) == repr(json.loads(body))
    assert [type(one) for one in value["a"]] == [type(one) for one in json.loads(body)["a"]]


@pytest.mark.parametrize(
    "special",
    [
        b"18446744073709551615",  # the largest that fits
        b"18446744073709551616",
        b"-9223372036854775809",
        b"123456789012345678901234567890",
        b"12345678901234567890.5",
        b"1e0000000000000000000002",
        b"1e400",
        b"NaN",
        b"-Infinity",
        b'"\\ud800"',
        b'"12345678901234567890"',
        b"[" * 100 + b"]" * 100,
    ],
)
@pytest.mark.parametrize("form", [b"[%s, %s]", b'{"a": %s, "b": [%s]}', b"%s%.0s", b"\xef\xbb\xbf[%s,%s]"])
def test_what_orjson_would_read_differently_is_read_as_ever(special, form):
    padding = b", 0.12345" * 500
    body = form % (special, special + padding)
    if form.startswith(b"%s"):
        body = special + b" " * codec.NUMBERS_FROM
    value, expected = decode_request(body, JSON), json.loads(body)
    if isinstance(expected, str):
        expected = expected.encode("utf-8", "surrogatepass")
    assert repr(value) == repr(expected)


@pytest.mark.parametrize("end", [b"", b",", b"]]", b"}", b"] x", b"\x00]", b'"'])
def test_a_large_body_that_is_no_json_is_told_in_the_same_words(end, monkeypatch):
    body = b"[" + b"0.5, " * 2000 + b"1" + end

    def told():
        with pytest.raises(RequestError) as caught:
            decode_request(body, JSON)
        return caught.value.detail

    quick = told()
    monkeypatch.setattr(codec, "_orjson", False)
    assert quick == told()


def test_where_there_is_no_orjson_numbers_are_read_as_ever(monkeypatch):
    monkeypatch.setattr(codec, "_orjson", None)
    monkeypatch.setitem(sys.modules, "orjson", None)
    body = json.dumps([random.random() for _ in range(1000)]).encode()
    assert decode_request(body, JSON) == json.loads(body)
    assert codec._orjson is False
