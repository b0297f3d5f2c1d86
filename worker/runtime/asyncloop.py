"""The loop of an async worker after its load: every request is a task on one event loop.

Owns the socket in non-blocking mode. The sync counterpart is loop.py.
"""

from __future__ import annotations

import asyncio
import contextvars
import socket
import threading
from functools import partial
from typing import Any, Optional

import frames
import output
import tracing
from answer import Answer, StreamError
from link import LinkClosed, log_frame, refuse_in_copy
from loop import BEGUN, BEGUN_NESTED, MOST_HEAD, Host, refusal, unfit
from owner import end_copy

_current: contextvars.ContextVar[int] = contextvars.ContextVar("request", default=0)
_request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="")


class AsyncServer:
    """Answers requests on one event loop."""

    def __init__(
        self, endpoint: Any, sock: socket.socket, reader: frames.Reader, marks: memoryview, max_frame: int
    ) -> None:
        self._endpoint = endpoint
        self._sock = sock
        self._reader = reader
        self._marks = marks
        self._max_frame = max_frame
        self._loop: Any = None
        self._thread = threading.get_ident()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._calls: dict[int, asyncio.Future[frames.Frame]] = {}
        self._prepared: dict[int, Any] = {}  # the cases after preprocess, by the id of the request
        self._handlers = {
            frames.REQUEST: endpoint.handle_async,
            frames.LENT_REQUEST: endpoint.handle_async,
            frames.TENSORS: endpoint.handle_tensors_async,
            frames.PRE: partial(self._prepare, endpoint.begin_async),
            frames.PRE_TENSORS: partial(self._prepare, endpoint.begin_tensors_async),
            frames.POST: self._finish,
            frames.PIECE: self._piece,
        }
        self._next_call = 0
        self._credits: dict[int, asyncio.Semaphore] = {}
        self._out = bytearray()
        self._flushing = False
        self._stopping = False
        self._done: Any = None
        output.request_id = _request_id.get

    async def run(self, early: list[frames.Frame]) -> None:
        """Answer until Go sends stop; raises LinkClosed when Go has closed the link. early came during the load."""
        self._loop = asyncio.get_running_loop()
        self._done = self._loop.create_future()
        self._sock.setblocking(False)
        self._take(early)
        self._loop.add_reader(self._sock, self._readable)
        try:
            await self._done
        finally:
            end_copy()  # the selector is shared with the owner, so a copy must not change it
            self._loop.remove_reader(self._sock)
            for task in list(self._tasks.values()):
                task.cancel()
            if self._tasks:
                await asyncio.wait(list(self._tasks.values()), timeout=5)
            self._sock.setblocking(True)

    def _readable(self) -> None:
        end_copy()
        try:
            more = self._reader.fill()
            got = self._reader.frames()
        except (BlockingIOError, InterruptedError):
            return
        except (OSError, frames.FrameError):
            more, got = False, []
        self._take(got)
        if not more:
            self._end(LinkClosed())

    def _take(self, got: list[frames.Frame]) -> None:
        for frame in got:
            kind = frame.kind
            if kind in frames.REQUESTS:
                mark = BEGUN_NESTED if frame.flags & frames.FLAG_NESTED else BEGUN
                self._marks[mark] = frame.id
                task = self._loop.create_task(self._answer(frame))
                self._tasks[frame.id] = task
            elif kind == frames.CALL_ANSWER:
                future = self._calls.get(frame.id)
                if future is not None and not future.done():
                    future.set_result(frame)
            elif kind == frames.CANCEL:
                task = self._tasks.get(frame.id)
                if task is not None:  # a task that is cancelled before it starts could not answer
                    self._loop.call_soon(task.cancel)
            elif kind == frames.CREDIT:
                window = self._credits.get(frame.id)
                if window is not None:
                    for _ in range(frame.code):
                        window.release()
            elif kind == frames.DROP:
                self._prepared.pop(frame.id, None)
            elif kind == frames.VARIABLES:
                self._endpoint.variables.rename(frame.body)
            elif kind == frames.STOP:
                self._stopping = True
                self._finish_if_idle()

    async def _answer(self, frame: frames.Frame) -> None:
        number = frame.id
        _current.set(number)
        trace: Any = None
        try:
            deadline, kind, request_id, client = frames.request_head(frame.head)
            if frame.flags & frames.FLAG_TRACED:
                trace, request_id = tracing.split(request_id)
                tracing.start(trace)  # for this task
            _request_id.set(request_id)
            meta = {
                "sampled": frame.flags & 1 == 1,
                "request_id": request_id,
                "depth": frame.code,
                "deadline": deadline,
                "client": client,
            }
            answer = await self._handlers[frame.kind](self._reader.body(frame), kind.decode("latin-1"), meta)
            if trace is not None:
                tracing.flush(trace, number, self._send)
            if answer.stream is not None:
                await self._stream(number, answer, trace)
            else:
                try:
                    self._send_answer(number, answer)
                except Exception as error:
                    self._send_answer(number, unfit(error))
        except asyncio.CancelledError:
            self._send(frames.pack(frames.ANSWER, number, flags=frames.FLAG_CANCELLED))
        finally:
            self._tasks.pop(number, None)
            self._finish_if_idle()

    async def _prepare(self, begin: Any, body: frames.Buffer, content_type: str, meta: dict[str, Any]) -> Answer:
        """Preprocess only. The state is kept until Go sends POST or DROP."""
        number = _current.get()
        case = await begin(number, body, content_type, meta)
        answer = self._endpoint.prepare(case, content_type, self._max_frame - MOST_HEAD)
        if not answer.error_kind and answer.stream is None:
            self._prepared[number] = case
        return answer

    async def _finish(self, body: frames.Buffer, content_type: str, meta: dict[str, Any]) -> Answer:
        """Postprocess the result of a computation elsewhere."""
        number, value = frames.post_body(body)
        case = self._prepared.pop(number, None)
        if case is None:
            return refusal(500, "the state of this request is gone", "answer")
        return await self._endpoint.finish_async(self._endpoint.resume(case, meta, content_type, value))

    async def _piece(self, body: frames.Buffer, content_type: str, meta: dict[str, Any]) -> Answer:
        """Postprocess a part of the result. The state stays."""
        number, value = frames.post_body(body)
        case = self._prepared.get(number)
        if case is None:
            return refusal(500, "the state of this request is gone", "answer")
        return await self._endpoint.finish_async(self._endpoint.resume(case, meta, content_type, value))

    def _head(self, answer: Answer) -> bytes:
        return frames.answer_head(
            answer.content_type.encode("latin-1", "replace"), answer.error_kind.encode(), answer.stats, answer.headers
        )

    def _send_answer(self, number: int, answer: Answer) -> None:
        head, body = self._head(answer), answer.body
        if len(head) + len(body) > self._max_frame:
            text = f"the answer has {len(body)} bytes, more than the {self._max_frame} that a message may have"
            answer = refusal(500, text, "answer")
            head, body = self._head(answer), answer.body
        size = len(head) + len(body)
        self._send(frames.HEADER.pack(size, frames.ANSWER, 0, answer.status, len(head), number), head, body)

    async def _stream(self, number: int, answer: Answer, trace: Any) -> None:
        head = self._head(answer)
        window = self._credits[number] = asyncio.Semaphore(frames.STREAM_WINDOW)
        failed = b""
        try:
            self._send(
                frames.HEADER.pack(len(head), frames.ANSWER, frames.FLAG_STREAM, answer.status, len(head), number), head
            )
            async for chunk in answer.stream:
                view = memoryview(chunk)
                for start in range(0, len(view), frames.MAX_CHUNK):
                    await window.acquire()
                    piece = view[start : start + frames.MAX_CHUNK]
                    self._send(frames.HEADER.pack(len(piece), frames.CHUNK, 0, 0, 0, number), piece)
        except StreamError as error:
            failed = str(error).encode("utf-8", "replace") or b"the stream failed"
        except Exception as error:
            failed = f"{type(error).__name__}: {error}".encode("utf-8", "replace")
        except asyncio.CancelledError:
            failed = b"cancelled"
        finally:
            del self._credits[number]
            close = getattr(answer.stream, "aclose", None)
            if close is not None:
                await close()
        if trace is not None:
            tracing.flush(trace, number, self._send)
        self._send(frames.pack(frames.END, number, failed))

    def _send(self, *parts: frames.Buffer) -> None:
        end_copy()
        for part in parts:
            self._out += part
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        end_copy()
        try:
            sent = self._sock.send(self._out)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self._loop.remove_writer(self._sock)
            self._end(LinkClosed())
            return
        del self._out[:sent]
        if self._out:
            self._loop.add_writer(self._sock, self._flush)
        else:
            self._loop.remove_writer(self._sock)
            self._flushing = False
            self._finish_if_idle()

    def _finish_if_idle(self) -> None:
        if self._stopping and not self._tasks and not self._out:
            self._end(None)

    def _end(self, error: Optional[BaseException]) -> None:
        if self._done.done():
            return
        if error is None:
            self._done.set_result(None)
        else:
            self._done.set_exception(error)

    async def call_async(
        self, url: str, version: Optional[str], body: bytes, content_type: str, timeout: Optional[float]
    ) -> tuple[int, str, bytes]:
        """Call another endpoint for the request that this task executes."""
        refuse_in_copy()
        head = frames.call_head(_current.get(), url, version, content_type)
        if len(head) + len(body) > self._max_frame:
            raise ValueError(f"send_request: {len(body)} bytes are more than a message may have ({self._max_frame})")
        self._next_call += 1
        number = self._next_call
        future = self._calls[number] = self._loop.create_future()
        try:
            self._send(frames.HEADER.pack(len(head) + len(body), frames.CALL, 0, 0, len(head), number), head, body)
            return frames.call_answer(await asyncio.wait_for(future, timeout))
        except asyncio.TimeoutError:
            raise TimeoutError(f"send_request to '{url}' was not answered within {timeout} s") from None
        finally:
            del self._calls[number]

    def call(
        self, url: str, version: Optional[str], body: bytes, content_type: str, timeout: Optional[float]
    ) -> tuple[int, str, bytes]:
        """Call from another thread than the loop's."""
        refuse_in_copy()
        if threading.get_ident() == self._thread:
            raise RuntimeError("a blocking call on the event loop would never end: await self.send_request(...)")
        waiting = self.call_async(url, version, body, content_type, timeout)
        return asyncio.run_coroutine_threadsafe(waiting, self._loop).result()

    def log(self, level: str, text: str, key: str = "") -> None:
        """Write a line to the endpoint's log; may be called from any thread."""
        end_copy()
        line = log_frame(level, text, key, _current.get())
        if threading.get_ident() == self._thread:
            self._send(line)
        else:
            self._loop.call_soon_threadsafe(self._send, line)


def serve_async(endpoint: Any, host: Host, sock: socket.socket, marks: memoryview, max_frame: int) -> None:
    """Answer requests of an async endpoint until the end; raises LinkClosed when Go has closed the link."""
    link = host.link
    host.server = server = AsyncServer(endpoint, sock, link.reader, marks, max_frame)
    early = list(link.plain) + list(link.nested)
    loop = endpoint.loop or _new_loop()
    asyncio.set_event_loop(loop)
    loop.run_until_complete(server.run(early))


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
