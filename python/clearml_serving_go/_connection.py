"""Connections to one service: kept open between requests, and used by one request at a time."""

from __future__ import annotations

import http.client
import select
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Optional, Union
from urllib.parse import urlsplit

from ._errors import ConnectError, ConnectionLostError, RequestTimeoutError

Connection = Union[http.client.HTTPConnection, http.client.HTTPSConnection]


@dataclass(frozen=True)
class Reply:
    """An answer as it came. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Cancellation:
    """Ends a request from another thread: its connection is cut, which the service notices."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: Optional[Connection] = None
        self._event = threading.Event()

    @property
    def cancelled(self) -> bool:
        """Tell whether the request was cancelled."""
        return self._event.is_set()

    def cancel(self) -> None:
        """Cut the connection of the request, now or as soon as it has one."""
        with self._lock:
            self._event.set()
            self._cut()

    def watch(self, connection: Optional[Connection]) -> None:
        """Set the connection that the request uses."""
        with self._lock:
            self._connection = connection
            if self.cancelled:
                self._cut()

    def sleep(self, seconds: float) -> None:
        """Wait, but no longer than until the request is cancelled."""
        self._event.wait(seconds)

    def _cut(self) -> None:
        sock = self._connection.sock if self._connection else None
        if sock is not None:
            try:
                sock.shutdown(socket.SHUT_RDWR)  # wakes a thread that reads; close would not
            except OSError:
                pass  # it has ended already


class Connections:
    """The idle connections to a service. Safe for many threads."""

    def __init__(self, url: str, context: Optional[ssl.SSLContext], max_idle: int) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is no address of a service: give it as http://host:8080")
        if parts.query or parts.fragment or "@" in parts.netloc:  # which may be secrets, and are not shown
            raise ValueError(
                f"the address of a service at {parts.hostname} has neither a query, nor a fragment, nor a user"
            )
        self.url = url.rstrip("/")
        self.path = parts.path.rstrip("/")
        self._host, self._port = parts.hostname, parts.port
        self._context = (context or ssl.create_default_context()) if parts.scheme == "https" else None
        self._max_idle = max_idle
        self._lock = threading.Lock()
        self._idle: list[Connection] = []

    def close(self) -> None:
        """Close the idle connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def send(
        self,
        method: str,
        path: str,
        body: Optional[bytes],
        headers: Mapping[str, str],
        deadline: float,
        cancellation: Cancellation,
    ) -> Reply:
        """Send a request and read its answer."""
        connection = self._open(deadline)
        reusable = False
        try:
            cancellation.watch(connection)
            reply, reusable = _exchange(connection, method, self.path + path, body, headers, deadline)
            return reply
        except socket.timeout as e:
            raise RequestTimeoutError(f"{method} {self.url}{path}: no answer in time") from e
        except (OSError, http.client.HTTPException) as e:
            raise ConnectionLostError(f"{method} {self.url}{path}: the connection ended: {_reason(e)}") from e
        finally:
            cancellation.watch(None)
            self._give_back(connection, reusable and not cancellation.cancelled)

    def _open(self, deadline: float) -> Connection:
        while True:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                break
            if _alive(connection):
                return connection
            connection.close()
        new: Connection
        if self._context is None:
            new = http.client.HTTPConnection(self._host, self._port)
        else:
            new = http.client.HTTPSConnection(self._host, self._port, context=self._context)
        try:
            new.timeout = _left(deadline)
            new.connect()
        except socket.timeout as e:
            new.close()
            raise RequestTimeoutError(f"{self.url}: no connection in time") from e
        except OSError as e:
            new.close()
            raise ConnectError(f"{self.url}: cannot connect: {_reason(e)}") from e
        return new

    def _give_back(self, connection: Connection, reusable: bool) -> None:
        if reusable:
            with self._lock:
                if len(self._idle) < self._max_idle:
                    self._idle.append(connection)
                    return
        connection.close()


def _exchange(
    connection: Connection,
    method: str,
    path: str,
    body: Optional[bytes],
    headers: Mapping[str, str],
    deadline: float,
) -> tuple[Reply, bool]:
    sock = connection.sock
    sock.settimeout(_left(deadline))
    try:
        connection.request(method, path, body=body, headers=dict(headers))
    except (BrokenPipeError, ConnectionResetError):
        pass  # the service has refused the body before all of it was sent: its answer says why
    sock.settimeout(_left(deadline))
    response = connection.getresponse()
    chunks = []
    while not response.isclosed():
        sock.settimeout(_left(deadline))
        chunk = response.read(1 << 16)
        if not chunk:
            break
        chunks.append(chunk)
    if response.length:  # what Content-Length says is missing
        raise http.client.IncompleteRead(b"".join(chunks), response.length)
    found: dict[str, str] = {}
    for name, value in response.getheaders():
        name = name.lower()
        found[name] = f"{found[name]}, {value}" if name in found else value
    return Reply(response.status, found, b"".join(chunks)), not response.will_close


def _alive(connection: Connection) -> bool:
    """Tell whether an idle connection is still open: the service has sent nothing, no end either."""
    sock = connection.sock
    if sock is None:
        return False
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        return not poll.poll(0)
    return not select.select([sock], [], [], 0)[0]


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise socket.timeout("the time of the request is over")
    return left


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__
