"""send_request: calls another endpoint of the same service.

Owns the form of the request and of its answer. The host owns the transport.
"""

from __future__ import annotations

import inspect
import json
from typing import Any, Callable, Optional

from answer import JSON
from clearml_serving_worker import SendRequest, SendRequestError
from codec import encode_json, is_json

SHOWN = 1000  # characters of an error answer that are logged


def send_request_for(host: Any, is_async: bool) -> Callable[..., Any]:
    """Return the function that becomes Preprocess.send_request."""
    takes_timeout = {name: _takes_timeout(getattr(host, name, None)) for name in ("call", "call_async")}

    def send_request(
        endpoint: str,
        version: Optional[str] = None,
        data: Any = None,
        raise_on_error: bool = False,
        timeout: Optional[float] = None,
    ) -> Any:
        """Call another endpoint; return its decoded JSON, or None on an error status."""
        url, version, body, kind = _question(endpoint, version, data)
        limit = {"timeout": timeout} if timeout is not None and takes_timeout["call"] else {}
        return _result(host, url, version, host.call(url, version, body, kind, **limit), raise_on_error)

    async def send_request_async(
        endpoint: str,
        version: Optional[str] = None,
        data: Any = None,
        raise_on_error: bool = False,
        timeout: Optional[float] = None,
    ) -> Any:
        """Call another endpoint; return its decoded JSON, or None on an error status."""
        url, version, body, kind = _question(endpoint, version, data)
        if timeout is None:
            answer = await host.call_async(url, version, body, kind)
        elif takes_timeout["call_async"]:
            answer = await host.call_async(url, version, body, kind, timeout=timeout)
        else:
            import asyncio

            answer = await asyncio.wait_for(host.call_async(url, version, body, kind), timeout)
        return _result(host, url, version, answer, raise_on_error)

    return SendRequest(send_request_async if is_async else send_request)


def _takes_timeout(function: Any) -> bool:
    try:
        return "timeout" in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False


def _question(endpoint: Any, version: Any, data: Any) -> tuple[str, Optional[str], bytes, str]:
    url = str(endpoint).strip("/")
    if not url:
        raise ValueError("send_request needs the name of an endpoint, such as 'model/1'")
    version = None if version is None else str(version).strip("/") or None
    if data is None:
        return url, version, b"", JSON
    if isinstance(data, (bytes, bytearray, memoryview)):
        return url, version, bytes(data), "application/octet-stream"
    return url, version, encode_json(data), JSON


def _result(host: Any, url: str, version: Optional[str], answer: Any, raise_on_error: bool) -> Any:
    status, content_type, body = answer
    if status >= 400:
        text = str(body, "utf-8", "replace")[:SHOWN]
        target = f"{url}/{version}" if version else url
        if raise_on_error:
            raise SendRequestError(status, f"{target}: {text}")
        told = f"send_request to '{target}' was answered {status}, so it returns None: {text}"
        host.log("warning", told, f"send_request {target} {status}")
        return None
    if not body:
        return None
    return json.loads(bytes(body)) if is_json(content_type) else bytes(body)
