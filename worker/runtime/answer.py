"""The answer of an endpoint to one request, and errors that are converted to one.

Owns the shape that loop.py puts on the wire. Knows nothing of user code, JSON
rules or sockets.
"""

from __future__ import annotations

from typing import Any

JSON = "application/json"


class Answer:
    """One response: status, content type, body, and facts for the Go side.

    `stats` is a JSON object of the variables to record, or empty.
    `error_kind` is "" for an answer, else the cause: "request" (the body could not
    be read), "value" (user code refused the value, 422), "status" (user code chose an error
    status), "user" (user code failed, 500), "answer" (its result cannot be sent) or
    "fatal" (this process can no longer be used and should be replaced).
    `stream` is an iterator of bytes, an async one if the endpoint is async; then `body` is
    empty. Its consumer must exhaust or close it. It raises StreamError when user code
    fails after the first chunk.
    """

    __slots__ = ("body", "content_type", "error_kind", "headers", "stats", "status", "stream")

    def __init__(
        self,
        status: int,
        content_type: str,
        body: bytes,
        headers: list[tuple[str, str]] | tuple[()] = (),
        stats: bytes = b"",
        error_kind: str = "",
        stream: Any = None,
    ) -> None:
        self.status = status
        self.content_type = content_type
        self.body = body
        self.headers = headers
        self.stats = stats
        self.error_kind = error_kind
        self.stream = stream

    def __repr__(self) -> str:
        what = "stream" if self.stream is not None else f"{len(self.body)} bytes"
        return f"<Answer {self.status} {self.content_type} {what} {self.error_kind}>"


class Cancelled(BaseException):
    """The request is cancelled, so its code ends here.

    Not an Exception: user code that catches those must not take it for a failure. Its finally
    blocks are executed.
    """


# The answer of a request that has ended by Cancelled. It has a stream so that other answers
# need no separate check for it.
CANCELLED = Answer(499, JSON, b"", stream=())


class LoadError(Exception):
    """An endpoint that cannot be loaded: the reason in one line, and the user's traceback."""

    cause = ""  # of a CodeError

    def __init__(self, message: str, traceback_text: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.traceback_text = traceback_text


class CodeError(LoadError):
    """Preprocess code that cannot be loaded: the message has the code's name, cause only the reason."""

    def __init__(self, name: str, cause: str, traceback_text: str = "") -> None:
        super().__init__(f"Failed loading preprocess code for '{name}': {cause}", traceback_text)
        self.cause = cause


class RequestError(Exception):
    """A request body that does not match its content type; detail is a list in FastAPI's form."""

    def __init__(self, detail: list[dict[str, Any]]) -> None:
        super().__init__(detail[0]["msg"])
        self.detail = detail


class AnswerError(Exception):
    """A value returned by user code that has no JSON form; the text has its place."""


class StreamError(Exception):
    """User code failed in the middle of a stream; the text is fit for a client."""
