"""Converts exceptions of a request to answers and log lines.

Texts and statuses are the original's where clients rely on them: ValueError is 422,
everything else 500, both as {"detail": ...}. A traceback goes to the log, never to a client.
"""

from __future__ import annotations

import re
from typing import Any, Callable

import versions
from answer import JSON, Answer, AnswerError, RequestError
from codec import encode_json
from tracebacks import origin, text_of, user_traceback, variable_hint

# The process can no longer be used: its accelerator memory or context is lost.
FATAL = ("CUDA out of memory", "NVML_SUCCESS == r INTERNAL ASSERT FAILED", "CUDA error:")
UNMEANT = ("application/x-www-form-urlencoded", "text/plain")  # the default of clients
LONGEST = 8 << 10  # characters of an exception's text that a client gets

XGBOOST_PLACE = re.compile(r"^\[[0-9:]+\] \S+:\d+: ")


def answer_failure(
    error: BaseException, meta: dict[str, Any], log: Callable[..., None], content_type: str = ""
) -> Answer:
    """Return the answer for the exception, and log it for the owner of the code."""
    if isinstance(error, RequestError):
        return Answer(422, JSON, encode_json({"detail": error.detail}), error_kind="request")
    if isinstance(error, AnswerError):
        text = f"the answer cannot be sent: {text_of(error)}"
        log("error", f"{_where(meta)}: {text}")
        return _detail(500, f"Error processing request: {text}", "answer")
    kind, text = safe_repr(type(error)), client_text(error) + variable_hint(error)
    fatal = any(mark in text for mark in FATAL)
    status = getattr(error, "status_code", None)
    if not fatal and isinstance(status, int) and 200 <= status <= 599 and hasattr(error, "detail"):
        return _chosen(error, int(status), meta, log)
    refused = isinstance(error, ValueError) and not fatal
    if not refused:
        text += _type_hint(error, content_type) + versions.hint()
    line = f"{_where(meta)}: Exception [{kind}] {text}\n{user_traceback(error)}"
    if refused:
        log("warning", line, f"{kind} {origin(error)}")  # clients repeat their mistakes
        return _detail(422, f"Error [{kind}] processing request: {text}", "value")
    log("error", line)
    # Two blanks, as in the original, because clients compare the text.
    return _detail(500, f"Error  [{kind}] processing request: {text}", "fatal" if fatal else "user")


def _type_hint(error: BaseException, content_type: str) -> str:
    """Explain why code that expects JSON got bytes, if a client's default may be the cause; else ""."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in UNMEANT or not isinstance(error, (TypeError, AttributeError, LookupError)):
        return ""
    return (
        f"; the request's Content-Type is {kind}, so the code got its body as bytes: "
        "a client that sends JSON has to send the header Content-Type: application/json"
    )


def client_text(error: BaseException) -> str:
    """Return the exception's text for clients."""
    if isinstance(error, SystemExit):
        return f"the endpoint's code called sys.exit({error.code!r}); it should raise an exception or return an answer"
    if isinstance(error, KeyboardInterrupt):
        return "the endpoint's code raised KeyboardInterrupt"
    if isinstance(error, RecursionError):
        return text_of(error) or "recursion too deep"
    if isinstance(error, MemoryError):
        return text_of(error) or "out of memory"
    text = text_of(error)
    if type(error).__name__ == "XGBoostError":  # its text has a place in XGBoost's source and a stack trace
        text = XGBOOST_PLACE.sub("", text).partition("\nStack trace:")[0].strip()
    return text if len(text) <= LONGEST else text[:LONGEST] + "..."


def safe_repr(kind: type) -> str:
    """Return "<class 'x'>", even if a metaclass overrides repr."""
    return type.__repr__(kind)


def _chosen(error: Any, status: int, meta: dict[str, Any], log: Callable[..., None]) -> Answer:
    """Answer an exception that carries its own status, such as FastAPI's HTTPException."""
    if status >= 500:
        log("error", f"{_where(meta)}: status {status}\n{user_traceback(error)}")
    try:
        body = b"" if status in (204, 304) else encode_json({"detail": error.detail})
        headers = getattr(error, "headers", None) or {}
        pairs = [(str(name), str(value)) for name, value in dict(headers).items()]
    except Exception as failure:
        text = f"{safe_repr(type(error))} with status {status} cannot be sent: {text_of(failure)}"
        log("error", f"{_where(meta)}: {text}")
        return _detail(500, f"Error processing request: {text}", "answer")
    pairs = [pair for pair in pairs if not any(mark in "".join(pair) for mark in "\r\n\0")]
    return Answer(status, JSON, body, pairs, error_kind="status" if status >= 400 else "")


def _detail(status: int, text: str, error_kind: str) -> Answer:
    return Answer(status, JSON, encode_json({"detail": text}), error_kind=error_kind)


def _where(meta: dict[str, Any]) -> str:
    request_id = meta.get("request_id") if meta else None
    return f"request {request_id}" if request_id else "request"
