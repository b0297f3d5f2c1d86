"""Spans of user code in the trace of a request, with the standard library alone.

    from clearml_serving_worker import span, traceparent

    with span("tokenise", words=12):
        ...
    requests.get(url, headers={"traceparent": traceparent()})

Without a trace they do nothing. If the code has imported OpenTelemetry's API, its spans are below these.
"""

from __future__ import annotations

import json
import os
import sys
from contextvars import ContextVar, Token
from time import time_ns
from typing import Any, Optional

MOST_SPANS = 128  # of one request
MOST_ATTRIBUTES = 32
MOST_TEXT = 1000  # characters
MOST_NUMBER = 2**63 - 1  # of an attribute; package json raises for one of thousands of digits


class Trace:
    """The trace of one request: its spans since they were sent last."""

    __slots__ = ("count", "header", "spans")

    def __init__(self, header: str) -> None:
        self.header = header  # version, trace, the span of the worker, flags
        self.spans: list[Any] = []
        self.count = 0

    @property
    def sampled(self) -> bool:
        """Return whether the trace is sent."""
        return self.header.endswith("1")

    def take(self) -> bytes:
        """Return the spans as JSON, once."""
        spans, self.spans = self.spans, []
        return json.dumps(spans).encode()


# The trace of the request that this thread or task executes, with the id of the present span.
_here: ContextVar[Optional[tuple[Trace, str]]] = ContextVar("clearml_serving_span", default=None)


def traceparent() -> str:
    """Return the W3C header for a request to another server, "" without a trace."""
    here = _here.get()
    if here is None:
        return ""
    trace, number = here
    return f"{trace.header[:36]}{number}{trace.header[52:]}"


class span:  # noqa: N801 - used like a function
    """Measure a part of a request: with span("name", attribute=value)."""

    __slots__ = ("_above", "_begin", "_id", "_joined", "_name", "_token", "_trace", "attributes")

    def __init__(self, name: str, **attributes: Any) -> None:
        self._name = name
        self._trace: Optional[Trace] = None
        self.attributes = attributes

    def __enter__(self) -> span:
        here = _here.get()
        if here is not None and here[0].sampled:
            self._trace, self._above = here
            self._id = os.urandom(8).hex()
            self._token = enter(self._trace, self._id)
            self._begin = time_ns()
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        trace = self._trace
        if trace is None:
            return
        end = time_ns()
        leave(self._token)
        self._trace = None
        trace.count += 1
        if trace.count > MOST_SPANS:
            return
        failed = "" if error is None else f"{type(error).__name__}: {_text(error)}"[:MOST_TEXT]
        values = {
            str(name)[:MOST_TEXT]: _value(self.attributes[name]) for name in list(self.attributes)[:MOST_ATTRIBUTES]
        }
        end = max(end, self._begin)  # the clock may have been set back
        trace.spans.append([str(self._name)[:MOST_TEXT], self._id, self._above, self._begin, end, values, failed])


def _value(value: Any) -> Any:
    if type(value) is bool or (type(value) is int and -MOST_NUMBER <= value <= MOST_NUMBER):
        return value
    if type(value) is float and value - value == 0:  # neither NaN nor infinite
        return value
    return _text(value)


def _text(value: Any) -> str:
    try:
        return str(value)[:MOST_TEXT]
    except Exception:
        return type(value).__name__


def enter(trace: Trace, number: str) -> tuple[Token[Any], Any]:
    """Make a span the present one of this thread or task."""
    return _here.set((trace, number)), _join(trace, number)


def leave(token: tuple[Token[Any], Any]) -> None:
    """Undo enter."""
    here, joined = token
    try:
        if joined is not None:
            sys.modules["opentelemetry.context"].detach(joined)
        _here.reset(here)
    except Exception:  # left in another task than entered
        _here.set(None)


def _join(trace: Trace, number: str) -> Any:
    """Make it the present span of OpenTelemetry's API too, if the code has imported that."""
    context, api = sys.modules.get("opentelemetry.context"), sys.modules.get("opentelemetry.trace")
    if context is None or api is None:
        return None
    try:
        place = api.SpanContext(
            int(trace.header[3:35], 16), int(number, 16), True, api.TraceFlags(int(trace.header[53:], 16))
        )
        return context.attach(api.set_span_in_context(api.NonRecordingSpan(place)))
    except Exception:  # another version of the API, or half an import
        return None
