"""The client."""

from __future__ import annotations

import copy
import os
import random
import ssl
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Optional, TypeVar, Union
from urllib.parse import quote

from . import _tensors
from ._connection import Cancellation, Connections, Reply
from ._encoding import dumps, encode, loads
from ._errors import ConnectError, ConnectionLostError, RequestTimeoutError, ServingError, retry_after, status_error

DEFAULT_URL = "http://127.0.0.1:8080"
# The service takes so many truths at once.
FEEDBACK_ROWS = 10_000

Version = Union[str, int, None]
Self = TypeVar("Self", bound="Client")


@dataclass(frozen=True)
class Answer:
    """An answer with what came with it. Names of headers are in lower case."""

    value: Any
    status: int
    headers: Mapping[str, str]

    @property
    def request_id(self) -> str:
        """The id by which feedback finds the prediction."""
        return self.headers.get("x-request-id", "")

    @property
    def endpoint(self) -> str:
        """The endpoint that answered: of a canary, the one that it chose."""
        return self.headers.get("x-clearml-endpoint", "")

    @property
    def model_id(self) -> str:
        """The id of the model that answered."""
        return self.headers.get("x-clearml-model-id", "")


@dataclass(frozen=True)
class FeedbackCounts:
    """What became of truths that were sent."""

    accepted: int = 0
    joined: int = 0
    pending: int = 0
    duplicate: int = 0


class Client:
    """Asks an inference service. One client may be used by many threads.

    url: address of the service; by default the variable CLEARML_SERVING_SERVE_URL, else this machine.
    key: the key of requests (clearml-serving auth create); by default the variable CLEARML_SERVING_KEY.
    timeout: seconds for a request with all its repetitions. The service knows it and stops in time.
    retries: how often a request is repeated that was not processed: the service could not be reached,
        or has answered 429 or 503 with Retry-After. A request that may have been processed is repeated
        only if it is said to be idempotent.
    ssl_context: for authorities, certificates and keys of your own.
    """

    def __init__(
        self,
        url: Optional[str] = None,
        *,
        key: Optional[str] = None,
        timeout: float = 60.0,
        retries: int = 3,
        headers: Optional[Mapping[str, str]] = None,
        ssl_context: Optional[ssl.SSLContext] = None,
        serve_suffix: str = "serve",
        max_idle_connections: int = 16,
    ) -> None:
        if timeout <= 0:
            raise ValueError(f"timeout {timeout}: give seconds, more than 0")
        url = url or os.environ.get("CLEARML_SERVING_SERVE_URL") or DEFAULT_URL
        self._connections = Connections(url, ssl_context, max_idle_connections)
        self._timeout, self._retries = timeout, retries
        self._serve = "/" + serve_suffix.strip("/") + "/"
        self._headers = dict(headers or {})
        key = key or os.environ.get("CLEARML_SERVING_KEY")
        if key:
            self._headers.setdefault("Authorization", f"Bearer {key}")
        self._cancellation: Optional[Cancellation] = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._connections.url!r})"

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        value: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._connections.close()

    def predict(
        self,
        endpoint: str,
        data: Any,
        *,
        version: Version = None,
        request_id: Optional[str] = None,
        timeout: Optional[float] = None,
        headers: Optional[Mapping[str, str]] = None,
        idempotent: bool = False,
    ) -> Any:
        """Ask an endpoint, and return the value of its answer: of JSON its value, else the bytes.

        data: any value that JSON has; arrays of numpy (lists); tables (a list of objects by column,
            what is missing is null); bytes, which are sent as they are.
        request_id: an id of your own by which feedback finds the prediction.
        idempotent: repeat the request also if the connection was lost while it was processed.
        """
        return self.ask(
            endpoint,
            data,
            version=version,
            request_id=request_id,
            timeout=timeout,
            headers=headers,
            idempotent=idempotent,
        ).value

    def ask(
        self,
        endpoint: str,
        data: Any,
        *,
        version: Version = None,
        content_type: Optional[str] = None,
        request_id: Optional[str] = None,
        timeout: Optional[float] = None,
        headers: Optional[Mapping[str, str]] = None,
        idempotent: bool = False,
    ) -> Answer:
        """Ask as predict does, and return the answer with its headers."""
        body, kind = encode(data)
        sent = {"Content-Type": content_type or kind, **(headers or {})}
        if request_id is not None:
            sent["X-Request-Id"] = request_id
        reply = self._send("POST", self._serve + _path(endpoint, version), body, sent, timeout, idempotent)
        return Answer(loads(reply.body, reply.headers.get("content-type", "")), reply.status, reply.headers)

    def infer(
        self,
        model: str,
        inputs: Any,
        *,
        version: Version = None,
        outputs: Optional[Sequence[str]] = None,
        datatypes: Optional[Mapping[str, str]] = None,
        parameters: Optional[Mapping[str, Any]] = None,
        request_id: Optional[str] = None,
        timeout: Optional[float] = None,
        headers: Optional[Mapping[str, str]] = None,
        idempotent: bool = False,
    ) -> dict[str, Any]:
        """Ask by the Open Inference Protocol (V2), and return the outputs by name.

        inputs: arrays or lists by name, or a table whose columns are the inputs. Arrays are sent as
            binary data, as they are; their datatype has to be that of the model, or one whose every
            value it has.
        datatypes: of inputs that are lists, such as {"x": "FP32"}. Without it, the model's are asked for first.

        Outputs are arrays of numpy, or lists if it is not installed.
        """
        named = _tensors.columns(inputs)
        known = dict(datatypes or {})
        if any(name not in known and not _tensors.is_array(value) for name, value in named.items()):
            begun = time.monotonic()
            described = self.metadata(model, version=version, timeout=timeout)
            timeout = (self._timeout if timeout is None else timeout) - (time.monotonic() - begun)
            if timeout <= 0:
                raise RequestTimeoutError(f"{model}: the time of the request is over")
            for tensor in described.get("inputs", []):
                if not _tensors.is_array(named.get(tensor["name"])):
                    known.setdefault(tensor["name"], tensor["datatype"])
        body, sent = _tensors.request(named, known, outputs, parameters, request_id)
        sent.update(headers or {})
        reply = self._send("POST", _v2(model, version) + "/infer", body, sent, timeout, idempotent)
        return _tensors.answer(reply.body, reply.headers)

    def metadata(self, model: str, *, version: Version = None, timeout: Optional[float] = None) -> dict[str, Any]:
        """Return the inputs and outputs of an endpoint, as the Open Inference Protocol describes them."""
        found: dict[str, Any] = self._json("GET", _v2(model, version), None, timeout)
        return found

    def endpoints(self, *, timeout: Optional[float] = None) -> list[dict[str, Any]]:
        """Return the endpoints that the key opens, with their versions and states."""
        found: list[dict[str, Any]] = self._json("POST", "/v2/repository/index", {}, timeout)
        return found

    def ready(self, endpoint: Optional[str] = None, *, version: Version = None, timeout: float = 5.0) -> bool:
        """Tell whether the service, or an endpoint, takes requests now."""
        path = "/readyz" if endpoint is None else _v2(endpoint, version) + "/ready"
        try:
            reply = self._once("GET", path, None, {}, time.monotonic() + timeout)
        except ServingError:
            return False
        return reply.status == 200

    def feedback(
        self,
        endpoint: str,
        truth: Any,
        *,
        request_id: Optional[str] = None,
        key: Any = None,
        version: Version = None,
        timeout: Optional[float] = None,
    ) -> FeedbackCounts:
        """Tell what turned out to be true of a prediction: by the request's id, or by your own key."""
        row = {"truth": truth}
        if request_id is not None:
            row["request_id"] = request_id
        if key is not None:
            row["key"] = key
        return self.feedback_many(endpoint, [row], version=version, timeout=timeout)

    def feedback_many(
        self,
        endpoint: str,
        rows: Iterable[Mapping[str, Any]],
        *,
        version: Version = None,
        timeout: Optional[float] = None,
    ) -> FeedbackCounts:
        """Tell what turned out to be true of many predictions: {"request_id" or "key": …, "truth": …}.

        Feedback may be repeated: what is known already is counted as duplicate.
        """
        path = "/feedback/" + _path(endpoint, version)
        listed = [dict(row) for row in rows]
        total = FeedbackCounts()
        for start in range(0, len(listed), FEEDBACK_ROWS):
            got = self._json("POST", path, listed[start : start + FEEDBACK_ROWS], timeout, idempotent=True)
            total = FeedbackCounts(
                **{name: getattr(total, name) + int(got.get(name, 0)) for name in FeedbackCounts.__dataclass_fields__}
            )
        return total

    def _cancellable(self, cancellation: Cancellation) -> Client:
        """Return this client for one call that another thread may cancel."""
        view = copy.copy(self)
        view._cancellation = cancellation
        return view

    def _json(self, method: str, path: str, data: Any, timeout: Optional[float], idempotent: bool = True) -> Any:
        body = None if data is None else dumps(data)
        sent = {} if data is None else {"Content-Type": "application/json"}
        reply = self._send(method, path, body, sent, timeout, idempotent)
        return loads(reply.body, "application/json")

    def _send(
        self,
        method: str,
        path: str,
        body: Optional[bytes],
        headers: Mapping[str, str],
        timeout: Optional[float],
        idempotent: bool,
    ) -> Reply:
        """Send a request, and again while that is safe and there is time."""
        if timeout is not None and timeout <= 0:
            raise ValueError(f"timeout {timeout}: give seconds, more than 0")
        deadline = time.monotonic() + (self._timeout if timeout is None else timeout)
        cancellation = self._cancellation or Cancellation()
        for left in range(self._retries, -1, -1):
            failure: ServingError
            pause = random.uniform(0.05, 0.1) * 2 ** (self._retries - left)
            try:
                reply = self._once(method, path, body, headers, deadline, cancellation)
            except ConnectError as e:
                failure, again = e, not isinstance(e.__cause__, ssl.SSLCertVerificationError)
            except ConnectionLostError as e:
                failure, again = e, idempotent
            else:
                if reply.status < 400:
                    return reply
                failure = status_error(reply.status, reply.body, reply.headers, f"{method} {path}")
                asked = retry_after(reply.headers)
                again = reply.status in (429, 503) and asked is not None
                pause += asked or 0
            if cancellation.cancelled or not again or not left or time.monotonic() + pause >= deadline:
                raise failure
            cancellation.sleep(pause)
        raise AssertionError("not reached: the last attempt returns or raises")

    def _once(
        self,
        method: str,
        path: str,
        body: Optional[bytes],
        headers: Mapping[str, str],
        deadline: float,
        cancellation: Optional[Cancellation] = None,
    ) -> Reply:
        cancellation = cancellation or self._cancellation or Cancellation()
        left = deadline - time.monotonic()
        if left <= 0:
            raise RequestTimeoutError(f"{method} {path}: the time of the request is over")
        sent = {"X-Request-Timeout": f"{left:.3f}", **self._headers, **headers}
        return self._connections.send(method, path, body, sent, deadline, cancellation)


def _path(endpoint: str, version: Version) -> str:
    name = endpoint.strip("/")
    if not name:
        raise ValueError("the name of the endpoint is empty")
    path = quote(name, safe="/")
    return path if version is None else f"{path}/{quote(str(version), safe='')}"


def _v2(model: str, version: Version) -> str:
    name = quote(model.strip("/"), safe="")
    if not name:
        raise ValueError("the name of the endpoint is empty")
    return f"/v2/models/{name}" if version is None else f"/v2/models/{name}/versions/{quote(str(version), safe='')}"
