"""What a client and the log get when user code fails."""

import json

import pytest


@pytest.mark.parametrize(
    ("code", "status", "detail", "kind"),
    [
        ("raise ValueError('bad x0')", 422, "Error [<class 'ValueError'>] processing request: bad x0", "value"),
        ("b'\\xff'.decode()", 422, "Error [<class 'UnicodeDecodeError'>] processing request: 'utf-8' codec", "value"),
        ("raise Mine('x')", 422, "Error [<class 'Preprocess.Mine'>] processing request: x", "value"),
        ("return {}['x0']", 500, "Error  [<class 'KeyError'>] processing request: 'x0'", "user"),
        ("raise RuntimeError('boom')", 500, "Error  [<class 'RuntimeError'>] processing request: boom", "user"),
        (
            "raise SystemExit(3)",
            500,
            "Error  [<class 'SystemExit'>] processing request: the endpoint's code called",
            "user",
        ),
        (
            "raise KeyboardInterrupt",
            500,
            "Error  [<class 'KeyboardInterrupt'>] processing request: the endpoint",
            "user",
        ),
        ("raise MemoryError", 500, "Error  [<class 'MemoryError'>] processing request: out of memory", "user"),
        (
            "self.process(data, state, None)",
            500,
            "Error  [<class 'RecursionError'>] processing request: maximum",
            "user",
        ),
        (
            "raise Mute()",
            500,
            "Error  [<class 'Preprocess.Mute'>] processing request: (its text cannot be shown",
            "user",
        ),
        ("raise StopIteration(1)", 500, "Error  [<class 'StopIteration'>] processing request: 1", "user"),
        (
            "raise Group('g', [ValueError('in')])",
            500,
            "Error  [<class 'Preprocess.Group'>] processing request: g",
            "user",
        ),
        ("raise RuntimeError('CUDA out of memory. Tried')", 500, "Error  [<class 'RuntimeError'>] processing", "fatal"),
        ("raise ValueError('CUDA out of memory. Tried')", 500, "Error  [<class 'ValueError'>] processing", "fatal"),
        ("raise RuntimeError('x' * 100_000)", 500, "Error  [<class 'RuntimeError'>] processing request: xxx", "user"),
    ],
)
@pytest.mark.parametrize("engine", ["custom", "custom_async"])
def test_exception_has_the_originals_status_and_text(process, code, status, detail, kind, engine):
    before = """
        class Mine(ValueError): pass
        class Mute(Exception):
            def __str__(self): raise OSError
            __repr__ = __str__
        class Group(Exception):
            def __init__(self, text, exceptions):
                super().__init__(text)
                self.exceptions = exceptions
    """
    endpoint = process(code, before=before, engine=engine)
    answer = endpoint.ask({})
    assert (answer.status, answer.content_type, answer.error_kind) == (status, "application/json", kind)
    told = json.loads(answer.body)["detail"]
    assert told.startswith(detail)
    assert len(told) < 9000
    assert "Traceback" not in told
    level, text = endpoint.host.lines[0]
    assert level == ("warning" if status == 422 else "error")
    assert text.startswith("request r1: Exception [")
    assert len(text) < 30_000


def test_traceback_in_the_log_starts_and_ends_at_user_lines(process):
    endpoint = process(
        "import json\ntry:\n    json.loads('{')\nexcept ValueError as e:\n    raise KeyError('later') from e"
    )
    endpoint.ask()
    text = endpoint.host.text()
    assert "json.loads('{')" in text
    assert "direct cause" in text
    assert "raise KeyError('later') from e" in text
    assert "endpoint.py" not in text
    assert "codec.py" not in text


def test_traceback_of_a_coroutine_leaves_out_the_event_loop(load):
    endpoint = load(
        "class Preprocess:\n    async def process(self, data, state, collect):\n        raise KeyError('x')\n"
    )
    assert endpoint.ask().status == 500
    assert "asyncio" not in endpoint.host.text()
    assert "awaiting.py" not in endpoint.host.text()
    assert "raise KeyError('x')" in endpoint.host.text()


def test_request_body_is_never_logged(process):
    endpoint = process("raise ValueError('no')")
    endpoint.ask({"secret": "hunter2"})
    assert "hunter2" not in endpoint.host.text()


def test_failed_request_leaves_the_next_one_alone(process):
    endpoint = process("return 1 / data")
    assert [endpoint.ask(n).status for n in (0, 1, 0, 2)] == [500, 200, 500, 200]


HTTP = """
    class HTTPException(Exception):
        def __init__(self, status_code, detail=None, headers=None):
            self.status_code, self.detail, self.headers = status_code, detail, headers
"""


@pytest.mark.parametrize(
    ("code", "status", "body", "headers", "logged"),
    [
        ("raise HTTPException(404, 'gone')", 404, b'{"detail":"gone"}', [], False),
        ("raise HTTPException(401, {'a': [1]}, {'X-A': 1})", 401, b'{"detail":{"a":[1]}}', [("X-A", "1")], False),
        ("import http\nraise HTTPException(http.HTTPStatus.GONE, 1)", 410, b'{"detail":1}', [], False),
        ("raise HTTPException(503, 'later')", 503, b'{"detail":"later"}', [], True),
        ("raise HTTPException(204)", 204, b"", [], False),
        ("raise HTTPException(400, 'x', {'A': 'b\\r\\nC: d'})", 400, b'{"detail":"x"}', [], False),
    ],
)
def test_exception_with_a_status_keeps_it(process, code, status, body, headers, logged):
    answer = (endpoint := process(code, before=HTTP)).ask()
    assert (answer.status, answer.body, list(answer.headers)) == (status, body, headers)
    assert bool(endpoint.host.lines) == logged


def test_exception_whose_detail_cannot_be_sent_is_a_500(process):
    answer = process("raise HTTPException(404, float('nan'))", before=HTTP).ask()
    assert (answer.status, answer.error_kind) == (500, "answer")
    assert b"answer['detail'] is NaN" in answer.body


@pytest.mark.parametrize(
    ("code", "status", "body", "headers"),
    [
        ("raise HTTPException(404, 'gone')", 404, b'{"detail":"gone"}', []),
        ("raise HTTPException(403)", 403, b'{"detail":"Forbidden"}', []),
        (
            "raise HTTPException(429, {'a': 1}, {'Retry-After': '3'})",
            429,
            b'{"detail":{"a":1}}',
            [("Retry-After", "3")],
        ),
        ("raise HTTPException(503, 'later')", 503, b'{"detail":"later"}', []),
    ],
)
def test_the_exception_that_comes_with_the_worker_has_a_status_of_its_own(process, code, status, body, headers):
    answer = process("from clearml_serving_worker import HTTPException\n" + code).ask()
    assert (answer.status, answer.body, list(answer.headers)) == (status, body, headers)


@pytest.mark.parametrize("status", ["99", "600", "1000", "-1", "'404'", "None", "True", "4.5"])
def test_a_status_that_is_none_is_a_500_that_names_the_exception(process, status):
    got, detail = process(
        f"from clearml_serving_worker import HTTPException\nraise HTTPException({status}, 'x')"
    ).detail()
    assert got == 500
    assert "HTTPException" in detail


def test_exception_with_an_impossible_status_is_a_plain_error(process):
    assert process("raise HTTPException(99, 'x')", before=HTTP).ask().status == 500


def test_fastapi_exception_keeps_status_and_headers(process):
    fastapi = pytest.importorskip("fastapi")
    assert fastapi.HTTPException
    endpoint = process("from fastapi import HTTPException\nraise HTTPException(418, 'tea', headers={'a': 'b'})")
    answer = endpoint.ask()
    assert (answer.status, answer.body, answer.headers) == (418, b'{"detail":"tea"}', [("a", "b")])


def test_answer_without_a_json_form_is_a_500_that_says_where(process):
    endpoint = process("return {'y': [1.0, float('nan')]}")
    answer = endpoint.ask()
    assert (answer.status, answer.error_kind) == (500, "answer")
    assert json.loads(answer.body)["detail"] == (
        "Error processing request: the answer cannot be sent: answer['y'][1] is NaN, which JSON cannot say: "
        "replace it in postprocess, e.g. by None, or set --aux-config nan_as_null=true for the endpoint"
    )
    assert endpoint.host.lines[0][0] == "error"


def test_log_that_fails_still_gives_an_answer(process, host):
    endpoint = process("raise KeyError(1)")

    def log(level, text):
        raise OSError("no log")

    endpoint.endpoint._log = log
    answer = endpoint.ask()
    assert answer.status == 500
    assert b"KeyError" in answer.body


def test_metaclass_that_lies_is_seen_through(process):
    before = """
        class Meta(type):
            def __repr__(cls): raise OSError
        class Odd(Exception, metaclass=Meta): pass
    """
    assert process("raise Odd('x')", before=before).detail() == (
        500,
        "Error  [<class 'Preprocess.Odd'>] processing request: x",
    )


@pytest.mark.parametrize("engine", ["custom", "custom_async"])
def test_json_without_its_content_type_names_the_header(load, engine):
    code = """
        class Preprocess:
            def preprocess(self, body, state, collect_custom_statistics_fn=None):
                return body["x"] if body != b"refused" else int("x")
    """
    endpoint = load(code, engine=engine)
    form = "application/x-www-form-urlencoded"
    for kind, body in ((form, b"{'x': 1}"), ("text/plain; charset=utf-8", b'{"x": 1}')):
        answer = endpoint.ask(body, kind)
        assert answer.status == 500
        assert b"header Content-Type: application/json" in answer.body
    assert endpoint.ask(b'{"x": 1}', form).status == 200  # JSON is unmistakable there
    assert b"Content-Type" not in endpoint.ask(b'{"x": 1}', "image/png").body
    assert b"Content-Type" not in endpoint.ask(b'{"y": 1}').body
    assert b"Content-Type" not in endpoint.ask(b"refused", "text/plain").body


def test_client_errors_of_one_place_have_one_key(process):
    endpoint = process("""
        if data["x"] < 2:
            raise ValueError(f"no {data['x']}")
        raise (ValueError if data["x"] == 2 else TypeError)("other")
    """)
    told = []
    endpoint.endpoint._log = lambda level, text, key="": told.append((level, key))
    for x in range(4):
        endpoint.ask({"x": x}, request_id=f"r{x}")
    keys = [key for _, key in told]
    assert keys[0] == keys[1]
    assert keys[0].startswith("<class 'ValueError'> ")
    assert keys[0].endswith("preprocess.py:6")
    assert keys[2].endswith("preprocess.py:7")
    assert told[3] == ("error", "")
