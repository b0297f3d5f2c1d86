"""The frames between the Go side and a worker.

Little-endian, one fixed header, then a head (metadata) and a body. It mirrors
worker/frame.go; a change of one is a change of both.

    length  u32   bytes after the header
    kind    u8
    flags   u8
    code    u16   depth of a request, status of an answer, credits of a stream
    head    u32   how many of the bytes after the header are metadata
    id      u64
"""

from __future__ import annotations

import io
import os
import socket
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional, Union

from clearml_serving_worker.tracing import traceparent

HEADER = struct.Struct("<IBBHIQ")
HEADER_SIZE = HEADER.size

# From Go to the worker.
SPEC = 1  # the first frame: what to load
REQUEST = 2
CANCEL = 3  # the request is cancelled
CALL_ANSWER = 4
CREDIT = 5  # the reader of a stream accepts this many more chunks
STOP = 6  # finish received requests, unload, exit
LIMIT = 7  # its id is the maximum number of rows to predict together from now on
LENT_REQUEST = 8  # its body is the place of the request's body in the shared memory
VARIABLES = 9  # the names of the statistics variables from now on, a JSON list
PRE = 10  # a request to preprocess only; its id names the state that is kept for POST or DROP
POST = 11  # the rest of such a request: its body is that id, u64, and the input of postprocess
DROP = 12  # drop the state of the PRE with this id
TENSORS = 13  # a request whose body is tensors
PRE_TENSORS = 14  # a PRE whose body is tensors
PIECE = 15  # a POST for a part of the result, after which the state is kept
# From the worker to Go.
READY = 16
LOAD_ERROR = 17
ANSWER = 18
CHUNK = 19
END = 20  # of a stream; a body is the text of its error
CALL = 21
LOG = 22
SPANS = 23  # spans of user code in the request with this id, a JSON list

FLAG_SAMPLED = 1  # of a request
FLAG_NESTED = 2  # of a request: it may be executed while another one waits for a call
FLAG_LENT = 4  # of a PRE: its body is a place, as that of a LENT_REQUEST; of tensors: their data has places
FLAG_TRACED = 8  # of a request: the traceparent is before its id
FLAG_STREAM = 1  # of an answer: chunks follow
FLAG_CANCELLED = 2  # of an answer: the request was not begun
FLAG_BATCH = 4  # of an answer: the last of its batch, whose size and time end its metadata

STREAM_WINDOW = 16  # chunks in flight before the first CREDIT
MAX_CHUNK = 64 << 10

Buffer = Union[bytes, bytearray, memoryview]


class Frame(NamedTuple):
    """One received message."""

    kind: int
    flags: int
    code: int
    id: int
    head: bytes
    body: Buffer


class Lent(NamedTuple):
    """The body of tensors whose data is in the shared memory, and the file of that memory."""

    head: bytes
    file: int


# Kinds of requests: what is executed in turn.
REQUESTS = frozenset((REQUEST, LENT_REQUEST, PRE, POST, PIECE, TENSORS, PRE_TENSORS))

_new = tuple.__new__


class FrameError(Exception):
    """The bytes are not frames: the connection cannot continue."""


class Large:
    """A frame whose body arrives in pieces, directly in the bytes for its reader, without a copy."""

    def __init__(self, frame: Frame, size: int) -> None:
        self._frame = frame
        # These bytes have no other reference, so BytesIO allows writing to them and returns them
        # without a copy.
        self._body = io.BytesIO(bytes(size))
        self.rest = self._body.getbuffer()  # the place of the next piece

    def take(self, piece: memoryview) -> None:
        """Add the bytes that arrived with the head."""
        self.rest[: len(piece)] = piece
        self.rest = self.rest[len(piece) :]

    def frame(self) -> Frame:
        """Return the whole frame; only when it is complete."""
        self.rest = memoryview(b"")
        return self._frame._replace(body=self._body.getvalue())


class Reader:
    """Cuts the bytes of a socket into frames, with one kept buffer.

    ``fill`` reads once, ``frames`` gives what is complete. A body that does not
    fit into the buffer is read straight into the bytes that user code gets.
    """

    def __init__(
        self, sock: socket.socket, bodies: int = -1, size: int = 256 << 10, max_frame: int = (1 << 31) - 1
    ) -> None:
        self._sock = sock
        self._bodies = bodies
        self._buf = bytearray(size)
        self._view = memoryview(self._buf)
        self._start = 0
        self._end = 0
        self._max = max_frame
        self._large: Optional[Large] = None

    def fill(self) -> bool:
        """Read once; False at the end of the stream."""
        if self._large is not None:
            n = self._sock.recv_into(self._large.rest)
            self._large.rest = self._large.rest[n:]
            return n > 0
        if self._start == self._end:
            self._start = self._end = 0
        elif self._end == len(self._buf) or self._start > len(self._buf) // 2:
            rest = self._end - self._start
            self._buf[:rest] = self._view[self._start : self._end]
            self._start, self._end = 0, rest
        n = self._sock.recv_into(self._view[self._end :])
        self._end += n
        return n > 0

    def body(self, frame: Frame) -> Any:
        """Return the body of a request. A body in the shared memory is copied once, here; tensors by their reader.

        Ask when it is needed, and one at a time: the memory of the last one is then used again.
        """
        if frame.kind != LENT_REQUEST and not frame.flags & FLAG_LENT:
            return frame.body
        if frame.kind == TENSORS or frame.kind == PRE_TENSORS:
            return Lent(bytes(frame.body), self._bodies)
        try:
            offset, size = _PLACE.unpack(frame.body)
            body = os.pread(self._bodies, size, offset)
            while len(body) < size:  # the system reads at most 2 GB at a time
                more = os.pread(self._bodies, size - len(body), offset + len(body))
                if not more:
                    raise FrameError(f"{size} bytes at {offset} of the shared memory")
                body += more
        except (OSError, struct.error) as error:
            raise FrameError(f"a request in the shared memory: {error}") from error
        return body

    def frames(self) -> list[Frame]:
        """Return all complete frames."""
        out: list[Frame] = []
        if self._large is not None:
            if self._large.rest:
                return out
            out.append(self._large.frame())
            self._large = None
        view, pos, end = self._view, self._start, self._end
        while end - pos >= HEADER_SIZE:
            length, kind, flags, code, head, number = HEADER.unpack_from(self._buf, pos)
            if length > self._max or head > length:
                raise FrameError(f"frame of {length} bytes with a head of {head} bytes")
            first = pos + HEADER_SIZE
            last = first + length
            if last > end:
                if head + HEADER_SIZE > len(self._buf):
                    raise FrameError(f"frame with a head of {head} bytes")
                if length + HEADER_SIZE > len(self._buf) and first + head <= end:
                    cut = first + head
                    self._large = Large(Frame(kind, flags, code, number, bytes(view[first:cut]), b""), length - head)
                    self._large.take(view[cut:end])
                    pos = end
                break
            cut = first + head
            # The fastest way to create a Frame, because this is done for each request.
            out.append(_new(Frame, (kind, flags, code, number, bytes(view[first:cut]), bytes(view[cut:last]))))
            pos = last
        self._start = pos
        return out


def pack(kind: int, number: int, body: Buffer = b"", head: bytes = b"", flags: int = 0, code: int = 0) -> bytes:
    """Return one whole frame; for small frames."""
    return HEADER.pack(len(head) + len(body), kind, flags, code, len(head), number) + head + bytes(body)


_NUMBER = struct.Struct("<Q")
_PLACE = struct.Struct("<QQ")  # offset and size of a body in the shared memory
# Deadline (of time.monotonic, 0: none), lengths of the content type and of the client's data.
_REQUEST_HEAD = struct.Struct("<dHI")
_unpack_request_head = _REQUEST_HEAD.unpack_from
_ANSWER_HEAD = struct.Struct("<HHHI")  # lengths of content type and error kind, headers, length of stats
_FIELD = struct.Struct("<HI")
_BATCH = struct.Struct("<III")  # rows, requests, microseconds
_CALL_HEAD = struct.Struct("<QHHH")  # parent request, lengths of url, version, content type


def request_head(head: bytes) -> tuple[Optional[float], bytes, str, Optional[bytes]]:
    """Return deadline, content type (as bytes, for the caller's table), request id, and the client's data.

    The last is for code that wants to see it (clientrequest.py), else None.
    """
    deadline, n, more = _unpack_request_head(head)
    cut = 14 + n
    if more:
        return (deadline or None), head[14:cut], head[cut + more :].decode(), head[cut : cut + more]
    return (deadline or None), head[14:cut], head[cut:].decode(), None


def post_body(body: Buffer) -> tuple[int, memoryview]:
    """Return the id of the PRE and the value of a POST or PIECE."""
    return _NUMBER.unpack_from(body)[0], memoryview(body)[_NUMBER.size :]


def answer_head(content_type: bytes, kind: bytes, stats: bytes, headers: Sequence[tuple[str, str]]) -> bytes:
    """Return the metadata of an answer."""
    parts = [_ANSWER_HEAD.pack(len(content_type), len(kind), len(headers), len(stats)), content_type, kind, stats]
    for name, value in headers:
        n, v = name.encode("latin-1", "replace"), value.encode("latin-1", "replace")
        parts += (_FIELD.pack(len(n), len(v)), n, v)
    return b"".join(parts)


def batch_tail(rows: int, requests: int, seconds: float) -> bytes:
    """Return the end of the metadata of an answer with FLAG_BATCH."""
    return _BATCH.pack(rows, requests, min(int(seconds * 1e6), 0xFFFFFFFF))


def call_head(parent: int, url: str, version: Optional[str], content_type: str) -> bytes:
    """Return the metadata of a call of user code to another endpoint."""
    u, v, c = url.encode(), (version or "").encode(), content_type.encode()
    if max(len(u), len(v), len(c)) > 0xFFFF:
        raise ValueError("send_request: endpoint, version and content type must be shorter than 64 KiB")
    return _CALL_HEAD.pack(parent, len(u), len(v), len(c)) + u + v + c + traceparent().encode()


def call_answer(frame: Frame) -> tuple[int, str, bytes]:
    """Return status, content type and body of the answer to a call."""
    return frame.code, frame.head.decode("utf-8", "replace"), bytes(frame.body)
