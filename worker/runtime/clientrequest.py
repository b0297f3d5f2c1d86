"""The parameter `request` of user code's methods: the client's request.

Only a method with this parameter gets it, and only then does Go send its data.
"""

from __future__ import annotations

import inspect
import json
import struct
from typing import Any, Callable, Optional
from urllib.parse import parse_qs

from clearml_serving_worker import Headers, Request

Step = Callable[[Any, Any, Any], Any]
NAME = "request"
PASSED = 3  # positional arguments of a step: data, state, collect_custom_statistics_fn

_SIZE = struct.Struct("<I")


class State(dict):  # type: ignore[type-arg]
    """The state of a request, with the request itself for methods with the parameter."""

    __slots__ = ("request",)


def state_of(meta: dict[str, Any], content_type: str) -> State:
    """Return the state of a new request."""
    state = State()
    state.request = request_of(meta.get("client"), content_type, meta.get("request_id") or "")
    return state


def request_of(client: Optional[bytes], content_type: str, request_id: str) -> Request:
    """Return the request for user code; client is the data from Go, None if the request has no client."""
    if not client:
        fields = [("content-type", content_type)] if content_type else []
        return Request("POST", "", {}, Headers(fields), content_type, None, request_id)
    texts, at = [], 0
    while at < len(client):
        (size,) = _SIZE.unpack_from(client, at)
        at += 4 + size
        texts.append(client[at - size : at])
    method, path, query, address = (text.decode("utf-8", "replace") for text in texts[:4])
    parameters = json.loads(texts.pop()) if len(texts) % 2 else None  # after the pairs
    names = [text.decode("latin-1") for text in texts[4:]]  # as in WSGI and ASGI
    headers = Headers(list(zip(names[::2], names[1::2])))
    return Request(method, path, parse_qs(query, True), headers, content_type, address, request_id, parameters)


def with_request(method: Optional[Step], warnings: list[str]) -> Optional[Step]:
    """Return a step that passes the request to a method with the parameter; None for any other method."""
    if not _has_parameter(method, warnings):
        return None
    return lambda data, state, collect: method(data, state, collect, request=state.request)


def with_requests(method: Optional[Step], warnings: list[str]) -> Optional[Step]:
    """Do the same for process_batch, which gets the list of the batch's requests."""
    if not _has_parameter(method, warnings):
        return None
    return lambda data, states, collects: method(data, states, collects, request=[state.request for state in states])


def _has_parameter(method: Any, warnings: list[str]) -> bool:
    if method is None:
        return False
    try:
        parameters = inspect.signature(method).parameters
    except (TypeError, ValueError):  # not written in Python
        return False
    found = parameters.get(NAME)
    if found is None or found.kind in (found.VAR_POSITIONAL, found.VAR_KEYWORD, found.POSITIONAL_ONLY):
        return False
    if found.kind is found.KEYWORD_ONLY or list(parameters).index(NAME) >= PASSED:
        return True
    if list(parameters).index(NAME) == PASSED - 1:
        warnings.append(
            f"the parameter request of {getattr(method, '__name__', 'a method')} gets collect_custom_statistics_fn, "
            "because it is the third one: put collect_custom_statistics_fn=None before it to get the request"
        )
    return False
