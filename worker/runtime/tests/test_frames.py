"""Frames, cut at any place on their way, come out whole."""

import socket
import struct

import pytest

import frames

HEAD = frames.HEADER_SIZE


@pytest.mark.parametrize("piece", [1, 7, HEAD, HEAD + 5, 63, 64, 65, 1000])
def test_bodies_larger_than_the_buffer_arrive_as_bytes(piece):
    sent = [
        (b"head", bytes(range(256)) * 4),
        (b"", b"small"),
        (b"h" * (64 - HEAD), b"just behind its head"),
        (b"", b"x" * (64 - HEAD)),  # fills the buffer
        (b"", b"y" * (65 - HEAD)),  # one more than that
        (b"two", b"z" * 500),
    ]
    wire = b"".join(frames.pack(frames.REQUEST, number, body, head) for number, (head, body) in enumerate(sent))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        reader = frames.Reader(theirs, size=64)
        got = []
        for start in range(0, len(wire), piece):
            ours.sendall(wire[start : start + piece])
            theirs.setblocking(False)
            while True:
                try:
                    reader.fill()
                except BlockingIOError:
                    break
                got += reader.frames()
    assert [(frame.id, frame.head, frame.body) for frame in got] == [
        (number, head, body) for number, (head, body) in enumerate(sent)
    ]
    assert all(type(frame.body) is bytes for frame in got)


def test_a_head_larger_than_the_buffer_is_no_frame():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        reader = frames.Reader(theirs, size=64)
        ours.sendall(frames.HEADER.pack(1000, frames.REQUEST, 0, 0, 65, 1))
        reader.fill()
        with pytest.raises(frames.FrameError, match="head of 65 bytes"):
            reader.frames()


def test_a_body_in_shared_memory_is_read_when_it_is_asked_for(tmp_path):
    (tmp_path / "bodies").write_bytes(b"-" * 5000 + b"the body" + b"-" * 100)
    ours, theirs = socket.socketpair()
    with ours, theirs, (tmp_path / "bodies").open("rb") as bodies:
        reader = frames.Reader(theirs, bodies.fileno())
        ours.sendall(frames.pack(frames.LENT_REQUEST, 1, struct.pack("<QQ", 5000, 8), b"head"))
        ours.sendall(frames.pack(frames.REQUEST, 2, b"plain", b"head"))
        reader.fill()
        lent, plain = reader.frames()
        assert (lent.head, reader.body(lent), reader.body(plain)) == (b"head", b"the body", b"plain")
        for place in (struct.pack("<QQ", 5000, 1000), struct.pack("<QQ", 1 << 40, 1), b"short"):
            with pytest.raises(frames.FrameError, match="shared memory"):
                reader.body(lent._replace(body=place))
