"""The loop of a sync worker after its load: answers one request at a time.

Owns the order: what is nested first, then as it came; an answer is never held back behind
a request that may be slow. The async counterpart is asyncloop.py.
"""

from __future__ import annotations

import json
import threading
from time import monotonic
from typing import Any, Optional

import frames
import output
import tracing
from answer import CANCELLED, Answer, Cancelled, StreamError
from frames import request_head
from link import Link, refuse_in_copy
from owner import end_copy
from sharing import note

# Seconds that an answer may wait for those of the next requests. Each send wakes the Go side,
# which on few cores takes the core of this process. Fewer sends keep its caches warm.
HOLD = 1e-3
# Places in the shared memory: the last request begun of either sort, the size of the waiting
# answers, the number of sends of such answers, and the number of Go's
# cancellations.
BEGUN, BEGUN_NESTED, UNSENT, SENDS, CANCELS = 0, 1, 2, 3, 4

MOST_HEAD = 256  # maximum bytes of an answer's metadata

ASKED = "the load asked another endpoint"

pack_into = frames.HEADER.pack_into


class Host:
    """The functions of the process for user code."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.server: Any = None  # a Server or an AsyncServer, once loaded

    def call(
        self, url: str, version: Optional[str], body: bytes, content_type: str, timeout: Optional[float] = None
    ) -> tuple[int, str, bytes]:
        """Call another endpoint; blocks. May be called from any thread."""
        if self.server is None:
            note(ASKED)
            return self.link.call(0, url, version, body, content_type, timeout, None)
        return self.server.call(url, version, body, content_type, timeout)

    async def call_async(
        self, url: str, version: Optional[str], body: bytes, content_type: str, timeout: Optional[float] = None
    ) -> tuple[int, str, bytes]:
        """Call another endpoint from a coroutine."""
        if self.server is None:
            note(ASKED)
            return self.link.call(0, url, version, body, content_type, timeout, None)
        return await self.server.call_async(url, version, body, content_type, timeout)

    def log(self, level: str, text: str, key: str = "") -> None:
        """Write a line to the endpoint's log; lines with the same key are summed up."""
        if self.server is None:
            self.link.log(level, text, key)
        else:
            self.server.log(level, text, key)


class Server:
    """Answers requests on the thread that calls run.

    Answers gather in memory that Go shares: should the next request kill the process, those
    before it are not lost.
    """

    one_by_one = True  # actions of user code belong to one request

    def __init__(
        self, endpoint: Any, link: Link, marks: memoryview, outbox: memoryview, max_frame: int, max_reentry: int
    ) -> None:
        self._endpoint = endpoint
        self._handle = endpoint.handle
        self._handlers = {
            frames.REQUEST: endpoint.handle,
            frames.LENT_REQUEST: endpoint.handle,
            frames.TENSORS: lambda *asked: endpoint.handle_tensors(*asked),
            frames.PRE: lambda *asked: self._prepare(endpoint.begin, *asked),
            frames.PRE_TENSORS: lambda *asked: self._prepare(endpoint.begin_tensors, *asked),
            frames.POST: self._finish,
            frames.PIECE: self._piece,
        }
        self._link = link
        self._marks = marks
        self._max_frame = max_frame
        self._max_reentry = max_reentry
        self._main = threading.get_ident()
        self._here = threading.local()  # the request of a thread other than the main one
        self._current = 0
        self._request_id = ""
        output.request_id = self.request_id
        self._stack = 0
        self._outbox = outbox
        self._room = len(outbox)
        self._unsent = 0
        self._oldest = 0.0  # when the first of the waiting answers was made
        self._guess = 0.0  # the expected duration of the next request
        self._clock = 0.0  # when the last request ended; Go's deadlines are times of the same clock
        self._cancelled = link.cancelled
        self._told: set[int] = set()  # of them, those whose code was notified by a send_request
        self._heads: dict[str, bytes] = {}
        self._types: dict[bytes, str] = {}
        endpoint.check = self._check

    def run(self) -> None:
        """Answer until Go sends stop; raises LinkClosed when Go has closed the link."""
        link, plain, nested = self._link, self._link.plain, self._link.nested

        def work() -> Any:
            return plain or nested or link.stopping

        while True:
            link.pump(work)
            self._clock = monotonic()
            while True:
                try:
                    if nested:
                        self._execute(nested.popleft(), BEGUN_NESTED)
                    elif plain:
                        self._execute(plain.popleft(), BEGUN)
                    else:
                        break
                except IndexError:  # another thread took it
                    continue
            self._flush()
            if self._cancelled:
                link.drop_cancelled()
            if link.stopping and not plain and not nested:
                return

    def _execute(self, frame: frames.Frame, mark: int) -> None:
        """Execute a request on the main thread."""
        sort, flags, depth, number, head, body = frame
        deadline, kind, request_id, client = request_head(head)
        marks = self._marks
        if number > marks[mark]:
            marks[mark] = number
        if number in self._cancelled or (deadline is not None and deadline <= self._clock):
            self._cancelled.discard(number)
            self._skip(number)
            return
        handle = self._handle
        if sort != frames.REQUEST:
            body = self._link.reader.body(frame)
            handle = self._handlers[sort]
        if flags & frames.FLAG_TRACED:
            trace, request_id = tracing.split(request_id)
            handle = tracing.within(trace, number, handle, self._link.send)
        before, self._current = self._current, number
        outer, self._request_id = self._request_id, request_id
        self._stack += 1
        answer = handle(
            body,
            self._types.get(kind) or self._content_type(kind),
            {
                "sampled": flags & 1 == 1,
                "request_id": request_id,
                "depth": depth,
                "deadline": deadline,
                "client": client,
            },
        )
        if answer.stream is not None:
            if answer is CANCELLED:
                self._skip(number)
            else:
                self._flush()
                self._stream(number, answer)
        else:
            try:
                self._add(number, answer)
            except Exception as error:
                self._add(number, unfit(error))
        self._stack -= 1
        self._current, self._request_id = before, outer
        if self._cancelled:
            self._forget(number)
        now = monotonic()
        took, self._clock = now - self._clock, now
        # The estimate decreases slowly, because the next request may be as slow.
        self._guess = took = max(took, self._guess / 2)
        if now + took > self._oldest + HOLD:
            self._flush()

    def _prepare(self, begin: Any, body: frames.Buffer, content_type: str, meta: dict[str, Any]) -> Answer:
        """Preprocess only. The state is kept until Go sends POST or DROP."""
        number = self._number()
        case = begin(number, body, content_type, meta)
        answer = self._endpoint.prepare(case, content_type, self._max_frame - MOST_HEAD)
        if not answer.error_kind and answer.stream is None:
            self._link.prepared[number] = case
        return answer

    def _finish(self, body: frames.Buffer, content_type: str, meta: dict[str, Any]) -> Answer:
        """Postprocess the result of a computation elsewhere."""
        number, value = frames.post_body(body)
        case = self._link.prepared.pop(number, None)
        if case is None:
            return refusal(500, "the state of this request is gone", "answer")
        return self._endpoint.finish(self._endpoint.resume(case, meta, content_type, value))

    def _piece(self, body: frames.Buffer, content_type: str, meta: dict[str, Any]) -> Answer:
        """Postprocess a part of the result. The state stays."""
        number, value = frames.post_body(body)
        case = self._link.prepared.get(number)
        if case is None:
            return refusal(500, "the state of this request is gone", "answer")
        return self._endpoint.finish(self._endpoint.resume(case, meta, content_type, value))

    def _skip(self, number: int) -> None:
        """Report that a request was not answered because it was cancelled."""
        self._flush()
        self._link.send(frames.pack(frames.ANSWER, number, flags=frames.FLAG_CANCELLED))

    def _check(self) -> None:
        """Raise Cancelled if the request that this thread executes was cancelled. This is cheap."""
        link = self._link
        if self._marks[CANCELS] != link.cancels:
            link.poll()
        if link.cancelled and self._number() in link.cancelled:
            raise Cancelled

    def _number(self) -> int:
        """Return the request that this thread, or else the main thread, executes, or 0."""
        return getattr(self._here, "number", 0) or self._current

    def _forget(self, number: int) -> None:
        """Drop the records of a cancelled request."""
        self._cancelled.discard(number)
        self._told.discard(number)

    def _content_type(self, kind: bytes) -> str:
        text = kind.decode("latin-1")
        if len(self._types) < 64 and len(text) < 48:  # bounded, because clients choose them; most boundaries are longer
            self._types[kind] = text
        return text

    def _head(self, answer: Answer) -> bytes:
        if answer.stats or answer.headers or answer.error_kind:
            return frames.answer_head(
                answer.content_type.encode("latin-1", "replace"),
                answer.error_kind.encode(),
                answer.stats,
                answer.headers,
            )
        head = self._heads.get(answer.content_type)
        if head is None:
            head = frames.answer_head(answer.content_type.encode("latin-1", "replace"), b"", b"", ())
            if len(self._heads) < 64:
                self._heads[answer.content_type] = head
        return head

    def _parts(self, number: int, answer: Answer, batch: bytes = b"") -> tuple[frames.Buffer, ...]:
        head, body = self._head(answer) + batch, answer.body
        flags = frames.FLAG_BATCH if batch else 0
        size = len(head) + len(body)
        if size > self._max_frame:
            text = f"the answer has {len(body)} bytes, more than the {self._max_frame} that a message may have"
            return self._parts(number, refusal(500, text, "answer"), batch)
        return frames.HEADER.pack(size, frames.ANSWER, flags, answer.status, len(head), number), head, body

    def _add(self, number: int, answer: Answer, batch: bytes = b"") -> None:
        """Append an answer to those that wait; batch is sent with the last one of a batch."""
        end_copy()  # before writing to the shared memory
        head, body, flags = self._head(answer), answer.body, 0
        if batch:
            head, flags = head + batch, frames.FLAG_BATCH
        start = self._unsent
        if not start:
            self._oldest = monotonic()
        size = len(head) + len(body)
        end = start + frames.HEADER_SIZE + size
        if end > self._room:
            self._flush()
            self._link.send(*self._parts(number, answer, batch))
            return
        if size > self._max_frame:
            self._link.send(*self._parts(number, answer, batch))
            return
        outbox = self._outbox
        pack_into(outbox, start, size, frames.ANSWER, flags, answer.status, len(head), number)
        cut = end - len(body)
        outbox[start + frames.HEADER_SIZE : cut] = head
        outbox[cut:end] = body
        self._unsent = self._marks[UNSENT] = end

    def _flush(self) -> None:
        end = self._unsent
        if end:
            self._link.send(self._outbox[:end])
            marks = self._marks
            marks[SENDS] += 1  # first, so that Go does not mistake the next answers for those that it has read
            self._unsent = marks[UNSENT] = 0

    def _execute_nested(self, frame: frames.Frame) -> None:
        """Execute a request on the thread of one that waits for a call."""
        number = frame.id
        main = threading.get_ident() == self._main
        if main:
            if self._stack > self._max_reentry:
                self._refuse_nested(number)
            else:
                self._execute(frame, BEGUN_NESTED)
            self._flush()
            return
        depth = getattr(self._here, "depth", 0)
        if depth >= self._max_reentry:
            self._refuse_nested(number)
            return
        deadline, kind, request_id, client = frames.request_head(frame.head)
        self._marks[BEGUN_NESTED] = max(self._marks[BEGUN_NESTED], number)
        before = getattr(self._here, "number", 0)
        outer = getattr(self._here, "request_id", "")
        handle = self._handlers[frame.kind]
        if frame.flags & frames.FLAG_TRACED:
            trace, request_id = tracing.split(request_id)
            handle = tracing.within(trace, number, handle, self._link.send)
        self._here.number, self._here.depth, self._here.request_id = number, depth + 1, request_id
        try:
            answer = handle(
                self._link.reader.body(frame),
                kind.decode("latin-1"),
                {
                    "sampled": frame.flags & 1 == 1,
                    "request_id": request_id,
                    "depth": frame.code,
                    "deadline": deadline,
                    "client": client,
                },
            )
        finally:
            self._here.number, self._here.depth, self._here.request_id = before, depth, outer
        if answer is CANCELLED:
            self._link.send(frames.pack(frames.ANSWER, number, flags=frames.FLAG_CANCELLED))
        elif answer.stream is not None:
            self._stream(number, answer)
        else:
            try:
                parts = self._parts(number, answer)
            except Exception as error:
                parts = self._parts(number, unfit(error))
            self._link.send(*parts)
        self._forget(number)

    def _refuse_nested(self, number: int) -> None:
        self._marks[BEGUN_NESTED] = max(self._marks[BEGUN_NESTED], number)
        text = f"endpoints call each other: {self._max_reentry} requests wait for each other in this worker"
        self._link.send(*self._parts(number, refusal(503, text, "reentry")))

    def _stream(self, number: int, answer: Answer) -> None:
        """Send the chunks of a stream, no faster than their reader accepts them."""
        link, head, marks = self._link, self._head(answer), self._marks
        link.credits[number] = frames.STREAM_WINDOW
        failed = b""
        try:
            link.send(
                frames.HEADER.pack(len(head), frames.ANSWER, frames.FLAG_STREAM, answer.status, len(head), number), head
            )
            for piece in pieces(answer.stream):
                if marks[CANCELS] != link.cancels:
                    link.poll()
                if link.credits[number] <= 0:
                    link.pump(lambda: link.credits[number] > 0 or number in link.cancelled, self._execute_nested)
                if number in link.cancelled:
                    break
                link.credits[number] -= 1
                link.send(frames.HEADER.pack(len(piece), frames.CHUNK, 0, 0, 0, number), piece)
        except StreamError as error:
            failed = str(error).encode("utf-8", "replace") or b"the stream failed"
        except Cancelled:
            pass
        except Exception as error:
            failed = f"{type(error).__name__}: {error}".encode("utf-8", "replace")
        finally:
            self._forget(number)
            del link.credits[number]
            close = getattr(answer.stream, "close", None)
            if close is not None:
                close()
        link.send(frames.pack(frames.END, number, failed))

    def call(
        self, url: str, version: Optional[str], body: bytes, content_type: str, timeout: Optional[float]
    ) -> tuple[int, str, bytes]:
        """Call another endpoint for the request that this thread executes.

        Raises Cancelled, once, if that request was cancelled, but only in a thread that is known
        to execute it.
        """
        refuse_in_copy()
        main = threading.get_ident() == self._main
        if main:
            self._flush()
        number = self._number()
        ends_with = 0
        if self.one_by_one and (main or getattr(self._here, "number", 0)) and number not in self._told:
            ends_with = number
        try:
            if ends_with:
                self._check()
            return self._link.call(number, url, version, body, content_type, timeout, self._execute_nested, ends_with)
        except Cancelled:
            self._told.add(number)
            raise

    async def call_async(
        self, url: str, version: Optional[str], body: bytes, content_type: str, timeout: Optional[float]
    ) -> tuple[int, str, bytes]:
        """Call from a coroutine inside a sync endpoint: it blocks its loop."""
        return self.call(url, version, body, content_type, timeout)

    def request_id(self) -> str:
        """Return the id of the request that this thread executes, else of the main thread's."""
        return getattr(self._here, "request_id", "") or self._request_id

    def log(self, level: str, text: str, key: str = "") -> None:
        """Write a line to the endpoint's log."""
        self._link.log(level, text, key, self._number())


def pieces(stream: Any) -> Any:
    """Split chunks that are too large for one frame."""
    for chunk in stream:
        if len(chunk) <= frames.MAX_CHUNK:
            if chunk:
                yield chunk
            continue
        view = memoryview(chunk)
        for start in range(0, len(view), frames.MAX_CHUNK):
            yield view[start : start + frames.MAX_CHUNK]


def refusal(status: int, text: str, error_kind: str) -> Answer:
    """Return an answer that does not come from user code."""
    return Answer(status, "application/json", json.dumps({"detail": text}).encode(), error_kind=error_kind)


def unfit(error: Exception) -> Answer:
    """Return the answer for one whose status or headers do not fit a frame."""
    return refusal(500, f"Error processing request: the answer cannot be sent: {error}", "answer")


def serve(endpoint: Any, host: Host, marks: memoryview, outbox: memoryview, max_frame: int, max_reentry: int) -> None:
    """Answer requests of a sync endpoint until the end; raises LinkClosed when Go has closed the link."""
    host.server = Server(endpoint, host.link, marks, outbox, max_frame, max_reentry)
    host.server.run()
