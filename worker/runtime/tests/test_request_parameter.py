"""The parameter `request` of user code's methods."""

import asyncio
import json
import struct

import pytest

import frames
from clearml_serving_worker import Headers, Request
from clientrequest import request_of
from stack import Case

SHOW = "[request.method, request.path, request.query, dict(request.headers), request.client, request.request_id]"


def client(method="POST", path="/serve/x", query="", address="10.0.0.1", fields=()):
    """Write what Go sends."""
    texts = [method, path, query, address]
    for name, value in fields:
        texts += (name, value)
    coded = [text.encode("latin-1" if index > 3 else "utf-8") for index, text in enumerate(texts)]
    return b"".join(struct.pack("<I", len(text)) + text for text in coded)


ASKED = {"client": client(query="a=1&a=2&b=", fields=[("X-A", "1"), ("Host", "h"), ("x-a", "2")]), "request_id": "r7"}
SEEN = ["POST", "/serve/x", {"a": ["1", "2"], "b": [""]}, {"x-a": "1, 2", "host": "h"}, "10.0.0.1", "r7"]


@pytest.mark.parametrize("engine", ["custom", "custom_async"])
@pytest.mark.parametrize("name", ["preprocess", "process", "postprocess"])
@pytest.mark.parametrize(
    "parameters",
    [
        "data, state, collect_custom_statistics_fn=None, request=None",
        "data, state, collect, *, request",
        "d, s, c, request, x=1",
    ],
)
def test_a_method_with_the_parameter_gets_the_request(load, engine, name, parameters):
    keyword = "async def" if engine == "custom_async" else "def"
    other = "" if name == "process" else f"\n    {keyword} process(self, d, s, c):\n        return d\n"
    endpoint = load(
        f"class Preprocess:\n    {keyword} {name}(self, {parameters}):\n        return {SHOW}\n{other}", engine
    )
    assert endpoint.endpoint.shows_request
    assert endpoint.value({}, **ASKED) == SEEN


@pytest.mark.parametrize(
    "code",
    [
        "def process(self, request, state, collect):\n        return [type(request).__name__, False]",
        "def process(self, data, request, collect):\n        return ['dict', bool(request)]",
        "def process(self, data, state, collect, **request):\n        return ['dict', bool(request)]",
        "def process(self, data, state, *request):\n        return ['dict', request != (None,)]",
        "def process(self, data, state, collect, req=None):\n        return ['dict', bool(req)]",
        "process = staticmethod(lambda data, state, request: ['dict', bool(request)])",
    ],
)
def test_other_methods_are_called_as_ever(load, code):
    endpoint = load(f"class Preprocess:\n    {code}\n")
    assert not endpoint.endpoint.shows_request
    assert endpoint.value({}, **ASKED) == ["dict", False]


def test_a_third_parameter_named_request_is_a_warning(load):
    endpoint = load("class Preprocess:\n    def preprocess(self, body, state, request=None):\n        return body\n")
    assert "the parameter request of preprocess gets collect_custom_statistics_fn" in endpoint.host.text()


def test_decorated_and_static_methods_may_have_it(load):
    endpoint = load(f"""
        import functools

        def decorated(f):
            @functools.wraps(f)
            def inner(*args, **kwargs):
                return f(*args, **kwargs)
            return inner

        class Preprocess:
            @decorated
            def preprocess(self, body, state, collect=None, request=None):
                state["path"] = request.path
                return body

            @staticmethod
            def process(data, state, collect=None, request=None):
                return [state["path"], {SHOW}]
    """)
    assert endpoint.value({}, **ASKED) == ["/serve/x", SEEN]


def test_a_batch_gets_the_request_of_each(load):
    endpoint = load(
        """
        class Preprocess:
            def process_batch(self, data, state, collect=None, request=None):
                return [[d, r.client] for d, r in zip(data, request)]
        """,
        extra={"max_batch_size": 4},
    ).endpoint
    cases = []
    for number in range(3):
        meta = {"sampled": False, "request_id": "", "client": client(address=f"10.0.0.{number}")}
        cases.append(endpoint.begin(number, str(number).encode(), "application/json", meta))
    endpoint.stack.run(cases)
    assert [json.loads(endpoint.finish(case).body) for case in cases] == [[n, f"10.0.0.{n}"] for n in range(3)]


@pytest.mark.parametrize("engine", ["custom", "custom_async"])
def test_a_request_in_two_steps_has_it_in_both(load, engine):
    keyword = "async def" if engine == "custom_async" else "def"
    endpoint = load(
        f"""
        class Preprocess:
            {keyword} preprocess(self, body, state, collect=None, request=None):
                return request.path

            {keyword} postprocess(self, data, state, collect=None, request=None):
                return request.client
        """,
        engine,
    ).endpoint
    meta = {"sampled": False, "request_id": "", "deadline": None, "client": client()}
    if engine == "custom":
        case = endpoint.begin(1, b"1", "application/json", meta)
        answer = endpoint.finish(case)
    else:
        case = asyncio.run(endpoint.begin_async(1, b"1", "application/json", meta))
        answer = asyncio.run(endpoint.finish_async(case))
    assert isinstance(case, Case)
    assert (case.answer, json.loads(answer.body)) == (None, "10.0.0.1")


def test_a_request_that_no_client_has_sent_has_no_client():
    request = request_of(None, "application/json", "r1")
    assert (request.method, request.path, request.client) == ("POST", "", None)
    assert (request.content_type, dict(request.headers)) == ("application/json", {"content-type": "application/json"})
    assert dict(request_of(b"", "", "").headers) == {}


def test_headers_have_names_in_any_case():
    headers = Headers([("X-Token", "a"), ("x-token", "b"), ("Accept", "c")])
    assert headers["X-TOKEN"] == "a, b"
    assert headers.getlist("x-Token") == ["a", "b"]
    assert "accept" in headers
    assert "ACCEPT" in headers
    assert headers.get("none") is None
    assert headers.getlist("none") == []
    assert len(headers) == 2
    assert repr(headers) == "Headers({'x-token': 'a, b', 'accept': 'c'})"
    assert "10.0.0.1" in repr(Request("GET", "/", {}, headers, "", "10.0.0.1", ""))


def test_parameters_follow_the_headers():
    text = b'{"sequence_id":7,"flag":true}'
    request = request_of(client(fields=[("X", "y")]) + struct.pack("<I", len(text)) + text, "", "")
    assert request.parameters == {"sequence_id": 7, "flag": True}
    assert request.headers["x"] == "y"
    assert request_of(client(), "", "").parameters == {}
    assert request_of(None, "", "").parameters == {}


def test_bytes_of_any_kind_are_read():
    request = request_of(client(path="/gr\u00fcn", query="%ff=%00&x", fields=[("X", "\xff")]), "a/b", "")
    assert request.path == "/gr\u00fcn"
    assert request.headers["x"] == "\xff"
    assert request.query == {"\ufffd": ["\x00"], "x": [""]}


def test_the_head_of_a_frame_has_it_where_it_was_sent():
    fixed = struct.Struct("<dHI")
    asked = client()
    assert frames.request_head(fixed.pack(0, 3, 0) + b"a/bid") == (None, b"a/b", "id", None)
    assert frames.request_head(fixed.pack(1.5, 3, len(asked)) + b"a/b" + asked + b"id") == (1.5, b"a/b", "id", asked)
