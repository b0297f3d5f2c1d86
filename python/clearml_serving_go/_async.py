"""The client for asyncio."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Callable, Optional, TypeVar

from ._client import Answer, Client, FeedbackCounts, Version
from ._connection import Cancellation

T = TypeVar("T")
Self = TypeVar("Self", bound="AsyncClient")


class AsyncClient:
    """Asks an inference service, for asyncio. The methods and arguments are those of Client.

    A request runs in a thread of this client, with a connection of its own; threads are made as they
    are needed, up to max_connections, and further requests wait. A cancelled request is cut, so that
    the service ends it.
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
        max_connections: int = 64,
    ) -> None:
        self._client = Client(
            url,
            key=key,
            timeout=timeout,
            retries=retries,
            headers=headers,
            ssl_context=ssl_context,
            serve_suffix=serve_suffix,
            max_idle_connections=max_connections,
        )
        self._threads = ThreadPoolExecutor(max_connections, thread_name_prefix="clearml-serving")

    def __repr__(self) -> str:
        return f"Async{self._client!r}"

    async def __aenter__(self: Self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: Optional[type[BaseException]],
        value: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Wait for the requests under way, and close the connections."""
        await asyncio.get_running_loop().run_in_executor(None, self._threads.shutdown)
        self._client.close()

    async def predict(
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
        """Ask an endpoint, and return the value of its answer; see Client.predict."""
        return await self._run(
            lambda client: client.predict(
                endpoint,
                data,
                version=version,
                request_id=request_id,
                timeout=timeout,
                headers=headers,
                idempotent=idempotent,
            )
        )

    async def ask(
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
        return await self._run(
            lambda client: client.ask(
                endpoint,
                data,
                version=version,
                content_type=content_type,
                request_id=request_id,
                timeout=timeout,
                headers=headers,
                idempotent=idempotent,
            )
        )

    async def infer(
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
        """Ask by the Open Inference Protocol (V2); see Client.infer."""
        return await self._run(
            lambda client: client.infer(
                model,
                inputs,
                version=version,
                outputs=outputs,
                datatypes=datatypes,
                parameters=parameters,
                request_id=request_id,
                timeout=timeout,
                headers=headers,
                idempotent=idempotent,
            )
        )

    async def metadata(self, model: str, *, version: Version = None, timeout: Optional[float] = None) -> dict[str, Any]:
        """Return the inputs and outputs of an endpoint."""
        return await self._run(lambda client: client.metadata(model, version=version, timeout=timeout))

    async def endpoints(self, *, timeout: Optional[float] = None) -> list[dict[str, Any]]:
        """Return the endpoints that the key opens."""
        return await self._run(lambda client: client.endpoints(timeout=timeout))

    async def ready(self, endpoint: Optional[str] = None, *, version: Version = None, timeout: float = 5.0) -> bool:
        """Tell whether the service, or an endpoint, takes requests now."""
        return await self._run(lambda client: client.ready(endpoint, version=version, timeout=timeout))

    async def feedback(
        self,
        endpoint: str,
        truth: Any,
        *,
        request_id: Optional[str] = None,
        key: Any = None,
        version: Version = None,
        timeout: Optional[float] = None,
    ) -> FeedbackCounts:
        """Tell what turned out to be true of a prediction; see Client.feedback."""
        return await self._run(
            lambda client: client.feedback(
                endpoint, truth, request_id=request_id, key=key, version=version, timeout=timeout
            )
        )

    async def feedback_many(
        self,
        endpoint: str,
        rows: Iterable[Mapping[str, Any]],
        *,
        version: Version = None,
        timeout: Optional[float] = None,
    ) -> FeedbackCounts:
        """Tell what turned out to be true of many predictions; see Client.feedback_many."""
        listed = list(rows)
        return await self._run(lambda client: client.feedback_many(endpoint, listed, version=version, timeout=timeout))

    async def _run(self, call: Callable[[Client], T]) -> T:
        cancellation = Cancellation()
        client = self._client._cancellable(cancellation)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, call, client)
        except asyncio.CancelledError:
            cancellation.cancel()
            raise
