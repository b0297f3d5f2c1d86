"""What preprocess code may import from the worker process.

    from clearml_serving_worker import Response

Everything else is provided through the Preprocess class: self.send_request and self.model_endpoint. This
package imports only the standard library.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Optional, Union

__all__ = ["Response", "SendRequestError"]

Headers = Union[Mapping[str, str], Iterable["tuple[str, str]"]]


class Response:
    """An answer with its own status, headers or content type.

    Return it from process or postprocess. The body is bytes, text, a generator or any other iterator of these
    (sent chunk by chunk, as they come), or any value that is to be sent as JSON. Without a content_type it
    depends on the body: text/plain, application/octet-stream, application/json.
    """

    __slots__ = ("body", "content_type", "headers", "status")

    def __init__(
        self,
        body: Any = None,
        status: int = 200,
        headers: Optional[Headers] = None,
        content_type: Optional[str] = None,
    ) -> None:
        if isinstance(status, bool) or not isinstance(status, int) or not 200 <= status <= 599:
            raise ValueError(f"the status of a Response must be a number from 200 to 599, not {status!r}")
        pairs = headers.items() if isinstance(headers, Mapping) else (headers or ())
        self.body = body
        self.status = int(status)
        self.headers = [(header_text(name), header_text(value)) for name, value in pairs]
        self.content_type = None if content_type is None else header_text(content_type)


class SendRequestError(Exception):
    """send_request(..., raise_on_error=True) was answered with an HTTP error status."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"status {status}: {text}")
        self.status = status
        self.text = text


def header_text(value: Any) -> str:
    """Return value as header text; line breaks would let a value add further headers."""
    text = str(value)
    if any(mark in text for mark in "\r\n\0"):
        raise ValueError(f"a header of a Response must be one line of text, not {text!r}")
    return text


_FIELDS = (
    "engine_type",
    "serving_url",
    "model_id",
    "version",
    "preprocess_artifact",
    "input_size",
    "input_type",
    "input_name",
    "output_size",
    "output_type",
    "output_name",
    "auxiliary_cfg",
)


class ModelEndpoint:
    """The endpoint's record, as user code finds it in self.model_endpoint."""

    def __init__(self, fields: dict[str, Any]) -> None:
        for name in _FIELDS:
            setattr(self, name, None)
        for name, value in fields.items():
            setattr(self, name, value)

    def as_dict(self, remove_null_entries: bool = False) -> dict[str, Any]:
        """Return the fields as a dict."""
        return {name: value for name, value in vars(self).items() if value is not None or not remove_null_entries}

    def __repr__(self) -> str:
        return f"ModelEndpoint({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


class SendRequest:
    """The send_request of a Preprocess; a copy of it in another process refuses to work."""

    def __init__(self, ask: Any = None) -> None:
        self._ask = ask

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call another endpoint."""
        if self._ask is None:
            raise RuntimeError(
                "send_request works in the worker only, not in a process that the endpoint's code has started"
            )
        return self._ask(*args, **kwargs)

    def __reduce__(self) -> Any:
        return SendRequest, ()
