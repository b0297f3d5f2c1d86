"""Results that are more than a value: responses and streams."""

import asyncio
import json

import pytest

from answer import StreamError

OURS = "from clearml_serving_worker import Response\n"


@pytest.mark.parametrize(
    ("code", "status", "content_type", "body"),
    [
        ("Response('hi')", 200, "text/plain; charset=utf-8", b"hi"),
        ("Response(b'hi', 202)", 202, "application/octet-stream", b"hi"),
        ("Response({'a': 1}, status=404)", 404, "application/json", b'{"a":1}'),
        ("Response([1])", 200, "application/json", b"[1]"),
        ("Response(status=204)", 204, "text/plain; charset=utf-8", b""),
        ("Response('<p>', content_type='text/html')", 200, "text/html", b"<p>"),
        ("Response(bytearray(b'x'), content_type='image/png')", 200, "image/png", b"x"),
    ],
)
@pytest.mark.parametrize("engine", ["custom", "custom_async"])
def test_response_keeps_status_and_content_type(process, code, status, content_type, body, engine):
    answer = process(f"return {code}", before=OURS, engine=engine).ask()
    assert (answer.status, answer.content_type, answer.body) == (status, content_type, body)
    assert answer.stream is None


def test_response_headers_may_repeat(process):
    answer = process("return Response('', headers=[('Set-Cookie', 'a'), ('Set-Cookie', 'b')])", before=OURS).ask()
    assert answer.headers == [("Set-Cookie", "a"), ("Set-Cookie", "b")]


@pytest.mark.parametrize(
    "code", ["Response('', 99)", "Response('', True)", "Response('', headers={'a': 'b\\r\\nc: d'})"]
)
def test_impossible_response_is_refused_where_it_is_made(process, code):
    endpoint = process(f"return {code}", before=OURS)
    assert endpoint.detail()[0] == 422
    assert "Response" in endpoint.host.text()


def chunks(endpoint, **meta):
    """Ask and drain the stream on the loop that it belongs to."""
    if not endpoint.endpoint.is_async:
        answer = endpoint.ask(**meta)
        assert answer.stream is not None, answer.body
        return answer, list(answer.stream)

    async def drain():
        answer = await endpoint.endpoint.handle_async(memoryview(b""), "", meta)
        assert answer.stream is not None, answer.body
        return answer, [chunk async for chunk in answer.stream]

    return asyncio.run(drain())


@pytest.mark.parametrize(
    ("items", "content_type", "expected"),
    [
        ("'a', 'b'", "text/plain; charset=utf-8", [b"a", b"b"]),
        ("'data: 1\\n\\n', {'a': 1}", "text/event-stream", [b"data: 1\n\n", b'data: {"a":1}\n\n']),
        ("b'a', 'b', bytearray(b'c')", "application/octet-stream", [b"a", b"b", b"c"]),
        ("{'a': 1}, 'b', [2]", "application/x-ndjson", [b'{"a":1}\n', b'"b"\n', b"[2]\n"]),
        ("'a', '', 'b'", "text/plain; charset=utf-8", [b"a", b"b"]),
    ],
)
@pytest.mark.parametrize("style", ["def", "async def"])
@pytest.mark.parametrize("engine", ["custom", "custom_async"])
def test_generator_is_a_stream(load, engine, style, items, content_type, expected):
    endpoint = load(
        f"class Preprocess:\n    {style} process(self, data, state, collect):\n"
        f"        for item in ({items},):\n            yield item\n",
        engine=engine,
    )
    answer, got = chunks(endpoint)
    assert (answer.status, answer.content_type, answer.body, got) == (200, content_type, b"", expected)


def test_empty_generator_is_an_empty_stream(process):
    assert b"".join(chunks(process("yield from ()"))[1]) == b""


@pytest.mark.parametrize("engine", ["custom", "custom_async"])
def test_response_may_hold_a_stream(process, engine):
    code = "return Response(({'n': i} for i in range(2)), 201, {'a': 'b'}, 'text/event-stream; charset=utf-8')"
    answer, got = chunks(process(code, before=OURS, engine=engine))
    assert (answer.status, answer.content_type, answer.headers) == (
        201,
        "text/event-stream; charset=utf-8",
        [("a", "b")],
    )
    assert got == [b'data: {"n":0}\n\n', b'data: {"n":1}\n\n']


@pytest.mark.parametrize("engine", ["custom", "custom_async"])
def test_generator_that_fails_at_once_is_a_plain_error(process, engine):
    assert process("yield {}['x']", engine=engine).detail()[0] == 500


@pytest.mark.parametrize("engine", ["custom", "custom_async"])
def test_failure_in_the_middle_ends_the_stream_and_is_logged(process, engine):
    endpoint = process("yield 'a'\nraise KeyError('x')", engine=engine)
    with pytest.raises(StreamError, match="KeyError: 'x'"):
        chunks(endpoint)
    assert endpoint.host.lines[0][0] == "error"
    assert "raise KeyError('x')" in endpoint.host.text()
    assert "result.py" not in endpoint.host.text()


@pytest.mark.parametrize("taken", [0, 1])
def test_closing_a_stream_stops_the_generator(process, taken):
    endpoint = process("try:\n    yield 'a'\n    yield 'b'\nfinally:\n    self.closed = True")
    stream = endpoint.ask().stream
    for _ in range(taken):
        next(stream)
    stream.close()
    stream.close()
    assert endpoint.endpoint.instance.closed
    assert list(stream) == []


@pytest.mark.parametrize("taken", [0, 1])
def test_closing_an_async_stream_stops_the_generator(load, taken):
    endpoint = load(
        """
        class Preprocess:
            async def process(self, data, state, collect):
                try:
                    yield 'a'
                    yield 'b'
                finally:
                    self.closed = True
        """,
        engine="custom_async",
    )

    async def close():
        answer = await endpoint.endpoint.handle_async(b"", "", {})
        for _ in range(taken):
            await answer.stream.__anext__()
        await answer.stream.aclose()
        await answer.stream.aclose()

    asyncio.run(close())
    assert endpoint.endpoint.instance.closed


@pytest.mark.parametrize("code", ["raise SystemExit(1)", "raise KeyboardInterrupt"])
@pytest.mark.parametrize("engine", ["custom", "custom_async"])
def test_exit_in_the_middle_is_not_the_end_of_the_worker(process, engine, code):
    with pytest.raises(StreamError):
        chunks(process(f"yield 'a'\n{code}", engine=engine))


@pytest.mark.parametrize("taken", [0, 1])
def test_generator_that_fails_when_stopped_is_logged(process, taken):
    endpoint = process("try:\n    yield 'a'\n    yield 'b'\nfinally:\n    raise OSError('still busy')")
    stream = endpoint.ask().stream
    for _ in range(taken):
        next(stream)
    stream.close()
    stream.close()
    assert len(endpoint.host.lines) == 1
    assert "OSError" in endpoint.host.text()


def test_async_generator_that_will_not_stop_is_logged(load):
    endpoint = load(
        """
        class Preprocess:
            async def process(self, data, state, collect):
                try:
                    yield 'a'
                finally:
                    yield 'b'
        """,
        engine="custom_async",
    )

    async def close():
        answer = await endpoint.endpoint.handle_async(b"", "", {})
        await answer.stream.aclose()

    asyncio.run(close())
    assert "ignored GeneratorExit" in endpoint.host.text()


class TestStarlette:
    @pytest.fixture(autouse=True)
    def starlette(self):
        pytest.importorskip("starlette")

    def test_response_is_passed_with_status_and_headers(self, process):
        code = """
        from starlette.responses import HTMLResponse
        response = HTMLResponse("<p>", 203, {"x-a": "b"})
        response.set_cookie("c", "d")
        response.set_cookie("e", "f")
        return response
        """
        answer = process(code).ask()
        assert (answer.status, answer.content_type, answer.body) == (203, "text/html; charset=utf-8", b"<p>")
        assert [name for name, _ in answer.headers] == ["x-a", "set-cookie", "set-cookie"]

    def test_json_response(self, process):
        answer = process("from starlette.responses import JSONResponse\nreturn JSONResponse({'a': 1})").ask()
        assert (answer.content_type, answer.body) == ("application/json", b'{"a":1}')

    @pytest.mark.parametrize("engine", ["custom", "custom_async"])
    def test_streaming_response_with_background_task(self, process, engine):
        code = """
        from starlette.background import BackgroundTask
        from starlette.responses import StreamingResponse
        done = BackgroundTask(setattr, self, "done", True)
        return StreamingResponse(iter(["a", "b"]), media_type="text/csv", background=done)
        """
        endpoint = process(code, engine=engine)
        answer, got = chunks(endpoint)
        assert answer.content_type.startswith("text/csv")
        assert got == [b"a", b"b"]
        assert endpoint.endpoint.instance.done

    @pytest.mark.parametrize("engine", ["custom", "custom_async"])
    def test_whole_response_with_background_task(self, process, engine):
        code = """
        from starlette.background import BackgroundTask
        from starlette.responses import PlainTextResponse
        return PlainTextResponse("a", background=BackgroundTask(setattr, self, "done", True))
        """
        endpoint = process(code, engine=engine)
        answer, got = chunks(endpoint)
        assert got == [b"a"]
        assert answer.content_type == "text/plain; charset=utf-8"
        assert endpoint.endpoint.instance.done

    @pytest.mark.parametrize("engine", ["custom", "custom_async"])
    def test_file_response(self, process, engine, tmp_path):
        file = tmp_path / "a.txt"
        file.write_bytes(b"x" * 100_000)
        code = f"from starlette.responses import FileResponse\nreturn FileResponse({str(file)!r})"
        answer, got = chunks(process(code, engine=engine))
        assert b"".join(got) == b"x" * 100_000
        assert answer.content_type.startswith("text/plain")
        assert "content-length" not in dict(answer.headers)

    def test_missing_file_is_an_error(self, process):
        code = "from starlette.responses import FileResponse\nreturn FileResponse('/no/such')"
        assert process(code).detail()[0] == 500


def test_object_that_only_looks_like_a_response_is_a_value(process):
    before = "class Odd:\n    def __init__(self):\n        self.status_code, self.headers = 200, {'a': 'b'}\n"
    assert json.loads(process("return Odd()", before=before).ask().body) == {"status_code": 200, "headers": {"a": "b"}}
