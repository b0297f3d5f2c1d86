"""The names that preprocess code may import from the worker process.

    from clearml_serving_worker import HTTPException, Response

Everything else is provided through the Preprocess class: self.send_request and self.model_endpoint. This
package imports only the standard library.
"""

from __future__ import annotations

import http
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Optional, Union

from .tracing import span, traceparent

__all__ = ["File", "Form", "HTTPException", "Headers", "Request", "Response", "SendRequestError", "span", "traceparent"]

Fields = Union[Mapping[str, str], Iterable["tuple[str, str]"]]


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
        headers: Optional[Fields] = None,
        content_type: Optional[str] = None,
    ) -> None:
        if isinstance(status, bool) or not isinstance(status, int) or not 200 <= status <= 599:
            raise ValueError(f"the status of a Response must be a number from 200 to 599, not {status!r}")
        pairs = headers.items() if isinstance(headers, Mapping) else (headers or ())
        self.body = body
        self.status = int(status)
        self.headers = [(header_text(name), header_text(value)) for name, value in pairs]
        self.content_type = None if content_type is None else header_text(content_type)


class HTTPException(Exception):  # noqa: N818 - the name in FastAPI, whose exception works as well
    """An error with a status of its own: raise it from preprocess, process or postprocess.

    The client gets the detail, any value with a JSON form, as {"detail": ...}.
    """

    def __init__(self, status_code: int, detail: Any = None, headers: Optional[Mapping[str, str]] = None) -> None:
        if detail is None:
            try:
                detail = http.HTTPStatus(status_code).phrase
            except ValueError:
                detail = ""
        super().__init__(f"{status_code}: {detail}")
        self.status_code = status_code
        self.detail = detail
        self.headers = headers


class File:
    """A file of a multipart/form-data request. The filename is the client's, without folders."""

    __slots__ = ("content_type", "data", "filename")

    def __init__(self, filename: str, content_type: str, data: bytes) -> None:
        self.filename = filename
        self.content_type = content_type
        self.data = data

    def __repr__(self) -> str:
        return f"File({self.filename!r}, {self.content_type!r}, {len(self.data)} bytes)"


class Form(dict):  # type: ignore[type-arg]
    """The body of a multipart/form-data request: name to text, or to a File; the last one if it was sent twice."""

    def __init__(self, values: Optional[Mapping[str, list[Any]]] = None) -> None:
        self._values = dict(values or {})
        super().__init__({name: each[-1] for name, each in self._values.items()})

    def getlist(self, name: str) -> list[Any]:
        """Return everything that was sent under a name, in order."""
        return list(self._values.get(name, ()))


class Headers(Mapping[str, str]):
    """The header fields of a request, with names in any case. A field that was sent twice is joined by commas."""

    def __init__(self, fields: Iterable[tuple[str, str]] = ()) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in fields:
            self._values.setdefault(name.lower(), []).append(value)

    def __getitem__(self, name: str) -> str:
        return ", ".join(self._values[name.lower()])

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def getlist(self, name: str) -> list[str]:
        """Return each value of a field, in order."""
        return list(self._values.get(name.lower(), ()))

    def __repr__(self) -> str:
        return f"Headers({dict(self)!r})"


class Request:
    """The client's request, for a method with the parameter `request`.

    method, path (decoded, without the query), query (name to a list of values), headers, content_type, client (the
    address that the connection comes from, None if no client has sent the request, as with send_request), request_id,
    and parameters (those of a request of the Open Inference Protocol, by name; of any other request there are none).
    """

    __slots__ = ("client", "content_type", "headers", "method", "parameters", "path", "query", "request_id")

    def __init__(
        self,
        method: str,
        path: str,
        query: dict[str, list[str]],
        headers: Headers,
        content_type: str,
        client: Optional[str],
        request_id: str,
        parameters: Optional[dict[str, Any]] = None,
    ) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.content_type = content_type
        self.client = client
        self.request_id = request_id
        self.parameters = {} if parameters is None else parameters

    def __repr__(self) -> str:
        return f"Request({self.method!r}, {self.path!r}, client={self.client!r})"


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
    """The endpoint's record in self.model_endpoint of user code."""

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
