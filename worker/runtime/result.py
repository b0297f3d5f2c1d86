"""Converts the results of user code to Answers.

Most results are values to be sent as JSON. A Response (ours, Starlette's or FastAPI's, recognised
by its shape) keeps its status and headers; a generator becomes a stream. The first chunk is
read before the answer starts, so that its type sets the content type and a generator that
fails at once is an ordinary error:
    bytes: application/octet-stream     text: text/plain, or text/event-stream if it begins
    like an event                       else: application/x-ndjson, a JSON line per item
"""

from __future__ import annotations

import types
from collections.abc import AsyncIterator, Iterator
from typing import Any, Callable, NamedTuple, Optional

from answer import JSON, Answer, Cancelled
from clearml_serving_worker import Response
from codec import encode_json

SIMPLE = frozenset({dict, list, str, int, float, bool, tuple, bytes, type(None)})
TEXT = "text/plain; charset=utf-8"
BINARY = "application/octet-stream"
LINES = "application/x-ndjson"
EVENTS = "text/event-stream"
EVENT_STARTS = ("data:", "event:", "id:", "retry:", ":")
# The Go side sets these.
NOT_PASSED = frozenset({"content-length", "content-type", "transfer-encoding", "connection", "date", "server"})
FILE_CHUNK = 64 << 10


class Outcome(NamedTuple):
    """The parts of a result. The body is bytes, an iterator of chunks, or None with `value` for JSON."""

    status: int
    headers: list[tuple[str, str]]
    content_type: Optional[str]
    body: Any
    value: Any = None
    background: Any = None


def outcome_of(value: Any) -> Outcome:
    """Split a result into its parts; everything except responses and streams is a value."""
    kind = type(value)
    if kind is types.GeneratorType or isinstance(value, types.AsyncGeneratorType):
        return Outcome(200, [], None, value)
    if isinstance(value, Response):
        return _own_response(value)
    if isinstance(getattr(value, "status_code", None), int) and hasattr(value, "headers"):
        found = _web_response(value)
        if found is not None:
            return found
    return Outcome(200, [], JSON, None, value)


def whole_answer(outcome: Outcome) -> Optional[Answer]:
    """Return the answer if it needs no stream, else None."""
    if outcome.background is not None:
        return None
    if outcome.body is None:
        body = encode_json(outcome.value)
        return Answer(outcome.status, outcome.content_type or JSON, body, outcome.headers)
    if isinstance(outcome.body, bytes):
        return Answer(outcome.status, outcome.content_type or BINARY, outcome.body, outcome.headers)
    return None


def stream_answer(outcome: Outcome, run: Callable[[Any], Any], failed: Callable[[BaseException], Exception]) -> Answer:
    """Return the answer of a sync endpoint; run waits for an awaitable.

    failed logs an error in the middle of the stream and returns what the stream raises for it.
    """
    items = iter(_pulled(outcome.body, run)) if isinstance(outcome.body, AsyncIterator) else _items(outcome.body)
    first = next(items, b"")
    content_type = outcome.content_type or content_type_for(first)
    encode = chunk_encoder(content_type)
    head = encode(first)

    def chunks() -> Iterator[bytes]:
        try:
            yield head
            for item in items:
                chunk = encode(item)
                if chunk:
                    yield chunk
            if outcome.background is not None:
                run(outcome.background())
        except (GeneratorExit, Cancelled):
            raise
        except BaseException as error:
            raise failed(error) from None
        finally:
            _close(items)

    return Answer(outcome.status, content_type, b"", outcome.headers, stream=Stream(chunks(), items, failed))


def collected_of(outcome: Outcome, run: Callable[[Any], Any], check: Callable[[], None]) -> Outcome:
    """Return the outcome with the items of its stream as its value; run waits for an awaitable."""
    body = outcome.body
    if body is not None and not isinstance(body, bytes):
        items = []
        for item in _pulled(body, run) if isinstance(body, AsyncIterator) else _items(body):
            check()
            items.append(item)
        outcome = outcome._replace(body=None, value=items)
    if outcome.background is not None:
        run(outcome.background())
    return outcome


async def collected_of_async(outcome: Outcome) -> Outcome:
    """Do the same for an async endpoint."""
    body = outcome.body
    if body is not None and not isinstance(body, bytes):
        source = body if isinstance(body, AsyncIterator) else _later(_items(body))
        outcome = outcome._replace(body=None, value=[item async for item in source])
    if outcome.background is not None:
        await outcome.background()
    return outcome


async def stream_answer_async(outcome: Outcome, failed: Callable[[BaseException], Exception]) -> Answer:
    """Return the answer of an async endpoint; the stream is an async iterator."""
    from asyncio import CancelledError

    items = outcome.body if isinstance(outcome.body, AsyncIterator) else _later(_items(outcome.body))
    try:
        first = await items.__anext__()
    except StopAsyncIteration:
        first = b""
    content_type = outcome.content_type or content_type_for(first)
    encode = chunk_encoder(content_type)
    head = encode(first)

    async def chunks() -> AsyncIterator[bytes]:
        try:
            yield head
            async for item in items:
                chunk = encode(item)
                if chunk:
                    yield chunk
            if outcome.background is not None:
                await outcome.background()
        except (GeneratorExit, CancelledError):
            raise
        except BaseException as error:
            raise failed(error) from None
        finally:
            await _close_async(items)

    return Answer(outcome.status, content_type, b"", outcome.headers, stream=AsyncStream(chunks(), items, failed))


class Stream:
    """Chunks whose source is closed even if the first chunk was never requested."""

    def __init__(self, chunks: Any, source: Any, failed: Callable[[BaseException], Exception]) -> None:
        self._chunks = chunks
        self._source = source
        self._failed = failed

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> bytes:
        return next(self._chunks)

    def close(self) -> None:
        """Stop the generator behind the stream. Never raises; may be called twice."""
        for generator in (self._chunks, self._source):
            try:
                _close(generator)
            except BaseException as error:  # user code that fails while it is stopped
                self._failed(error)


class AsyncStream:
    """Stream for async endpoints."""

    def __init__(self, chunks: Any, source: Any, failed: Callable[[BaseException], Exception]) -> None:
        self._chunks = chunks
        self._source = source
        self._failed = failed

    def __aiter__(self) -> AsyncStream:
        return self

    async def __anext__(self) -> bytes:
        return await self._chunks.__anext__()

    async def aclose(self) -> None:
        """Stop the generator behind the stream. Raises only CancelledError; may be called twice."""
        from asyncio import CancelledError

        for generator in (self._chunks, self._source):
            try:
                await _close_async(generator)
            except CancelledError:
                raise
            except BaseException as error:
                self._failed(error)


def content_type_for(first: Any) -> str:
    """Return the content type for a stream's first chunk."""
    if isinstance(first, (bytes, bytearray, memoryview)):
        return BINARY
    if isinstance(first, str):
        return EVENTS if first.startswith(EVENT_STARTS) else TEXT
    return LINES


def chunk_encoder(content_type: str) -> Callable[[Any], bytes]:
    """Return the encoder of a stream's items: text as it is, other values as JSON."""
    kind = content_type.partition(";")[0].strip().lower()
    lines, before, after = kind == LINES, b"", b"\n"
    if kind == EVENTS:
        before, after = b"data: ", b"\n\n"

    def encode(item: Any) -> bytes:
        if isinstance(item, (bytes, bytearray, memoryview)):
            return bytes(item)
        if isinstance(item, str) and not lines:
            return item.encode("utf-8", "replace")
        return before + encode_json(item) + after

    return encode


def _own_response(response: Response) -> Outcome:
    body, content_type = response.body, response.content_type
    if isinstance(body, str):
        body, content_type = body.encode("utf-8", "replace"), content_type or TEXT
    elif isinstance(body, (bytes, bytearray, memoryview)):
        body, content_type = bytes(body), content_type or BINARY
    elif not isinstance(body, (Iterator, AsyncIterator)):
        if body is None:  # no value means no body; null is a value
            return Outcome(response.status, response.headers, content_type or TEXT, b"")
        return Outcome(response.status, response.headers, content_type or JSON, None, body)
    return Outcome(response.status, response.headers, content_type, body)


def _web_response(response: Any) -> Optional[Outcome]:
    """Split a Starlette response into its parts; None if it only looks like one."""
    pairs = [
        (_latin(name), _latin(value))
        for name, value in getattr(response, "raw_headers", None) or response.headers.items()
    ]
    content_type = next((value for name, value in pairs if name.lower() == "content-type"), None)
    headers = [pair for pair in pairs if pair[0].lower() not in NOT_PASSED]
    if hasattr(response, "body_iterator"):
        body = response.body_iterator
    elif isinstance(getattr(response, "body", None), (bytes, memoryview)):
        body = bytes(response.body)
    elif isinstance(getattr(response, "path", None), (str, bytes)) or hasattr(
        getattr(response, "path", None), "__fspath__"
    ):
        body = _file(response.path)
    else:
        return None
    background = getattr(response, "background", None)
    if content_type is None and isinstance(body, bytes):
        content_type = BINARY
    return Outcome(int(response.status_code), headers, content_type, body, None, background)


def _latin(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _file(path: Any) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while chunk := file.read(FILE_CHUNK):
            yield chunk


def _items(body: Any) -> Iterator[Any]:
    return iter((body,)) if isinstance(body, bytes) else iter(body)


def _pulled(items: Any, run: Callable[[Any], Any]) -> Iterator[Any]:
    """Yield the items of an async iterator; run waits for each."""
    try:
        while True:
            try:
                item = run(items.__anext__())
            except StopAsyncIteration:
                return
            yield item
    finally:
        if hasattr(items, "aclose"):
            run(items.aclose())


async def _later(items: Iterator[Any]) -> AsyncIterator[Any]:
    try:
        for item in items:
            yield item
    finally:
        _close(items)


def _close(items: Any) -> None:
    close = getattr(items, "close", None)
    if close is not None:
        close()


async def _close_async(items: Any) -> None:
    close = getattr(items, "aclose", None)
    if close is not None:
        await close()
