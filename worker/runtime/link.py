"""A sync worker's end of the socket: reading and waiting.

Any thread of user code may wait in send_request. One thread at a time reads the socket: the
first one that waits while no other reads. So the common case, one thread, needs no
hand-over, and threads that user code starts can call while the main thread waits for them.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any, Callable, Optional

import frames
from answer import Cancelled
from owner import end_copy, owned

LEVELS = {"debug": 0, "info": 1, "warning": 2, "error": 3}
LARGE = 64 << 10
MOST_CANCELLED = 1024


def log_frame(level: str, text: str, key: str, number: int) -> bytes:
    """Return the frame of a line for the log. Lines with the same key, if it is not "", are summed up."""
    body = text.encode("utf-8", "replace")[: 256 << 10]
    head = key.encode("utf-8", "replace")[:1024]
    return frames.pack(frames.LOG, number, body, head, flags=LEVELS.get(level, 1))


class LinkClosed(BaseException):
    """The Go side has closed the link. Not an Exception, so that user code does not catch it."""


class Link:
    """Receives frames and sorts them by their purpose; sends frames."""

    def __init__(self, sock: socket.socket, max_frame: int, bodies: int) -> None:
        self._sock = sock
        self.reader = frames.Reader(sock, bodies, max_frame=max_frame)
        self._max = max_frame
        self._sending = threading.Lock()
        self._turn = threading.Condition(threading.Lock())  # guards the fields below
        self._reading = False
        self._next_call = 0
        self._answers: dict[int, Optional[frames.Frame]] = {}
        self.plain: deque[frames.Frame] = deque()
        self.nested: deque[frames.Frame] = deque()
        self.cancelled: set[int] = set()
        self.cancels = 0  # number of received cancellations
        self.credits: dict[int, int] = {}  # of the streams that are being sent
        self.most_rows = 0  # predicted together, from Go's last LIMIT
        self.prepared: dict[int, Any] = {}  # the cases after preprocess, by the id of the request
        self.rename: Optional[Callable[[frames.Buffer], None]] = None  # sets the names of the variables
        self.spec: Optional[frames.Frame] = None
        self.stopping = False
        self.closed = False

    def limit(self, max_frame: int) -> None:
        """Bound the size of a message, once it is known."""
        self._max = max_frame

    def pump(
        self,
        ready: Callable[[], Any],
        run_nested: Optional[Callable[[frames.Frame], None]] = None,
        limit: Optional[float] = None,
    ) -> bool:
        """Read, and execute nested requests, until ready() is true; False after limit seconds.

        ready is called under the lock. Raises LinkClosed at the end of the connection.
        """
        until = None if limit is None else time.monotonic() + limit
        turn = self._turn
        while True:
            job = None
            with turn:
                while True:
                    if ready():
                        return True
                    if self.closed:
                        raise LinkClosed
                    rest = None if until is None else until - time.monotonic()
                    if rest is not None and rest <= 0:
                        return False
                    if run_nested is not None and self.nested:
                        job = self.nested.popleft()
                        break
                    if not self._reading:
                        self._reading = True
                        break
                    turn.wait(rest)
            if job is not None and run_nested is not None:
                run_nested(job)
            else:
                self._read(rest)

    def poll(self) -> bool:
        """Sort received frames, without waiting; False if there are none. For the thread that runs the loop."""
        with self._turn:
            if self._reading or self.closed:
                return False
            self._reading = True
        had = len(self.plain) + len(self.nested)
        self._read(0)
        return len(self.plain) + len(self.nested) > had

    def _read(self, limit: Optional[float]) -> None:
        """Read once and sort the frames; the caller has the reader's role."""
        end_copy()
        got: list[frames.Frame] = []
        dropped: list[Any] = []  # finalizers of user code run without the lock
        closed = False
        try:
            if limit is None or select.select([self._sock], [], [], limit)[0]:
                closed = not self.reader.fill()
                got = self.reader.frames()
        except (OSError, frames.FrameError):
            closed = True
        finally:
            with self._turn:
                self._reading = False
                self.closed = self.closed or closed
                self._sort(got, dropped)
                self._turn.notify_all()

    def _sort(self, got: list[frames.Frame], dropped: list[Any]) -> None:
        requests = frames.REQUESTS
        for frame in got:
            kind = frame.kind
            if kind in requests:
                (self.nested if frame.flags & frames.FLAG_NESTED else self.plain).append(frame)
            elif kind == frames.CALL_ANSWER:
                if frame.id in self._answers:
                    self._answers[frame.id] = frame
            elif kind == frames.CANCEL:
                self.cancels += 1
                if len(self.cancelled) == MOST_CANCELLED:
                    self.drop_cancelled()
                self.cancelled.add(frame.id)
            elif kind == frames.CREDIT:
                if frame.id in self.credits:
                    self.credits[frame.id] += frame.code
            elif kind == frames.LIMIT:
                self.most_rows = frame.id
            elif kind == frames.VARIABLES:
                if self.rename is not None:
                    self.rename(frame.body)
            elif kind == frames.DROP:
                dropped.append(self.prepared.pop(frame.id, None))
            elif kind == frames.SPEC:
                self.spec = frame
            elif kind == frames.STOP:
                self.stopping = True

    def drop_cancelled(self) -> None:
        """Drop cancellations of ended requests; a cancellation that is dropped too early has no effect.

        Cancellations of streams stay: a stream would wait for its reader.
        """
        self.cancelled.intersection_update(self.credits)

    def send(self, *parts: frames.Buffer) -> None:
        """Send at once; may be called from any thread."""
        end_copy()
        size = sum(len(part) for part in parts)
        try:
            with self._sending:
                if len(parts) == 1:
                    self._sock.sendall(parts[0])
                elif size <= LARGE:
                    self._sock.sendall(b"".join(parts))
                else:
                    for part in _gathered(parts):
                        self._sock.sendall(part)
        except OSError as error:
            raise LinkClosed from error

    def log(self, level: str, text: str, key: str = "", number: int = 0) -> None:
        """Send a line for the log."""
        self.send(log_frame(level, text, key, number))

    def call(
        self,
        parent: int,
        url: str,
        version: Optional[str],
        body: frames.Buffer,
        content_type: str,
        timeout: Optional[float],
        run_nested: Optional[Callable[[frames.Frame], None]],
        ends_with: int = 0,
    ) -> tuple[int, str, bytes]:
        """Call another endpoint and wait for its answer.

        Raises Cancelled when the request with the number ends_with is cancelled.
        """
        refuse_in_copy()
        head = frames.call_head(parent, url, version, content_type)
        if len(head) + len(body) > self._max:
            raise ValueError(f"send_request: {len(body)} bytes are more than a message may have ({self._max})")
        with self._turn:
            self._next_call += 1
            number = self._next_call
            self._answers[number] = None
        try:
            self.send(frames.HEADER.pack(len(head) + len(body), frames.CALL, 0, 0, len(head), number), head, body)
            cancelled = self.cancelled

            def over() -> bool:
                return ends_with in cancelled or self._answers[number] is not None

            if not self.pump(over, run_nested, timeout):
                raise TimeoutError(f"send_request to '{url}' was not answered within {timeout} s")
            if ends_with in cancelled:
                raise Cancelled
            answer = self._answers[number]
        finally:
            with self._turn:
                del self._answers[number]
        assert answer is not None
        return frames.call_answer(answer)


def refuse_in_copy() -> None:
    """Raise if this process is a copy of the worker: the answer would go to the worker."""
    if not owned():
        raise RuntimeError(
            "send_request was called in a process that the endpoint's code has forked; it works in the worker only: "
            "call it there, and give the result to the child"
        )


def _gathered(parts: tuple[frames.Buffer, ...]) -> Iterator[frames.Buffer]:
    """Join small parts, leave large ones uncopied."""
    small: list[frames.Buffer] = []
    for part in parts:
        if len(part) < LARGE:
            small.append(part)
            continue
        yield b"".join(small)
        yield part
        small = []
    if small:
        yield b"".join(small)
