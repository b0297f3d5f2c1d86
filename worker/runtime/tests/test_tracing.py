"""Spans of user code: what is measured, where it belongs, and that nothing fails."""

from __future__ import annotations

import json
import sys
import threading
import types
from typing import Any

import pytest

import frames
import tracing
from answer import Answer
from clearml_serving_worker import span, traceparent
from clearml_serving_worker.tracing import MOST_SPANS, MOST_TEXT

HEADER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Stubborn:
    """A value whose text fails."""

    def __str__(self) -> str:
        raise RuntimeError


def within(code: Any, header: str = HEADER) -> tuple[Any, list[Any]]:
    """Run code within a trace; return its result and the spans that were sent."""
    sent: list[bytes] = []
    trace, request_id = tracing.split(header + "the id")
    assert request_id == "the id"
    answer = tracing.within(trace, 7, lambda *_: Answer(200, "", code()), sent.append)(b"", "", {})
    spans = []
    for frame in sent:
        length, kind, _, _, _, number = frames.HEADER.unpack_from(frame)
        assert (kind, number, length) == (frames.SPANS, 7, len(frame) - frames.HEADER_SIZE)
        spans += json.loads(frame[frames.HEADER_SIZE :])
    assert traceparent() == ""
    return answer.body, spans


def test_without_a_trace_nothing_is_measured() -> None:
    with span("x", a=1) as part:
        part.attributes["b"] = 2
        assert traceparent() == ""


def test_spans_are_below_each_other() -> None:
    def code() -> str:
        with span("outer", rows=3, share=0.5, yes=True, text="a", none=None, bad=Stubborn(), nan=float("nan")) as part:
            header = traceparent()
            with span("inner"):
                pass
            part.attributes["late"] = 1
            part.attributes["large"] = 10**5000
        with span("next"):
            return header

    header, (inner, outer, following) = within(code)
    assert header == f"{HEADER[:36]}{outer[1]}-01"
    assert (inner[0], outer[0], following[0]) == ("inner", "outer", "next")
    assert inner[2] == outer[1]
    assert outer[2] == following[2] == HEADER[36:52]
    assert outer[3] <= inner[3] <= inner[4] <= outer[4]
    assert outer[5] == {
        "rows": 3,
        "share": 0.5,
        "yes": True,
        "text": "a",
        "none": "None",
        "bad": "Stubborn",
        "nan": "nan",
        "late": 1,
        "large": "int" if hasattr(sys, "get_int_max_str_digits") else str(10**5000)[:MOST_TEXT],
    }


def test_an_exception_marks_its_span_and_passes() -> None:
    def code() -> None:
        with pytest.raises(ValueError, match="this"), span("x"):
            raise ValueError("this")

    _, spans = within(code)
    assert spans[0][6] == "ValueError: this"


def test_what_is_not_sampled_is_passed_on_only() -> None:
    def code() -> str:
        with span("x"):
            return traceparent()

    off = HEADER[:-1] + "0"
    assert within(code, off) == (off, [])


def test_spans_are_bounded() -> None:
    def code() -> None:
        for n in range(10 * MOST_SPANS):
            with span("x" * 10 * MOST_TEXT, **{f"a{i}": "y" * 10 * MOST_TEXT for i in range(n % 100)}):
                pass

    _, spans = within(code)
    assert len(spans) == MOST_SPANS
    assert max(len(json.dumps(one)) for one in spans) < 40 * MOST_TEXT


def test_a_thread_of_user_code_has_no_trace() -> None:
    found: list[str] = []

    def code() -> None:
        thread = threading.Thread(target=lambda: found.append(traceparent()))
        thread.start()
        thread.join()

    within(code)
    assert found == [""]


def test_a_stream_is_within_the_trace() -> None:
    sent: list[bytes] = []
    trace, _ = tracing.split(HEADER)

    def pieces() -> Any:
        for n in range(2):
            with span(f"piece {n}"):
                yield traceparent().encode()

    answer = tracing.within(trace, 7, lambda *_: Answer(200, "", b"", stream=pieces()), sent.append)(b"", "", {})
    got = list(answer.stream)
    assert traceparent() == ""
    spans = json.loads(sent[0][frames.HEADER_SIZE :])
    assert [one[0] for one in spans] == ["piece 0", "piece 1"]
    assert all(one[2] == HEADER[36:52] for one in spans)
    assert len(got) == 2


def test_half_of_opentelemetry_disturbs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.context", types.ModuleType("opentelemetry.context"))
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", types.ModuleType("opentelemetry.trace"))

    def code() -> None:
        with span("x"):
            pass

    assert len(within(code)[1]) == 1
