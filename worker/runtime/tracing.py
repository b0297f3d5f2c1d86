"""The worker's side of traces: sets the trace of a request, and sends its spans.

Used for traced requests only. Spans are measured by the package for user code, whose module this one uses.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import CoroutineType
from typing import Any, Callable, Optional

import frames
from clearml_serving_worker.tracing import Trace, enter, leave, span

__all__ = ["flush", "leave", "measured", "split", "start", "within"]

SIZE = 55  # of a traceparent

Handle = Callable[[Any, str, dict[str, Any]], Any]
Send = Callable[[bytes], None]


def split(request_id: str) -> tuple[Trace, str]:
    """Return the trace and the id of a traced request, whose id follows its traceparent."""
    return Trace(request_id[:SIZE]), request_id[SIZE:]


def start(trace: Trace) -> Any:
    """Make it the trace of this thread or task; undone by clearml_serving_worker.tracing.leave."""
    return enter(trace, trace.header[36:52])


def flush(trace: Trace, number: int, send: Send) -> None:
    """Send the new spans of a request."""
    if trace.spans:
        send(frames.pack(frames.SPANS, number, trace.take()))


def within(trace: Trace, number: int, handle: Handle, send: Send) -> Handle:
    """Return a handler of one request within its trace."""

    def run(body: Any, content_type: str, meta: dict[str, Any]) -> Any:
        token = start(trace)
        try:
            answer = handle(body, content_type, meta)
        finally:
            leave(token)
        flush(trace, number, send)
        if answer.stream is not None:
            answer.stream = _stream(answer.stream, trace, number, send)
        return answer

    return run


def _stream(stream: Any, trace: Trace, number: int, send: Send) -> Iterator[Any]:
    pieces = iter(stream)
    try:
        while True:
            token = start(trace)
            try:
                piece = next(pieces)
            except StopIteration:
                return
            finally:
                leave(token)
            yield piece
    finally:
        close = getattr(stream, "close", None)
        if close is not None:
            close()
        flush(trace, number, send)


def measured(name: str, step: Optional[Callable[..., Any]]) -> Optional[Callable[..., Any]]:
    """Return a step of user code or of the engine that is a span of its own."""
    if step is None:
        return None

    def run(data: Any, state: Any, collect: Any) -> Any:
        part = span(name)
        part.__enter__()
        try:
            result = step(data, state, collect)
        except BaseException as error:
            part.__exit__(type(error), error, None)
            raise
        if type(result) is CoroutineType:
            return _awaited(result, part)
        part.__exit__(None, None, None)
        return result

    return run


async def _awaited(result: Any, part: span) -> Any:
    try:
        value = await result
    except BaseException as error:
        part.__exit__(type(error), error, None)
        raise
    part.__exit__(None, None, None)
    return value
