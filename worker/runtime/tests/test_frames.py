"""Frames, cut at any place on their way, come out whole."""

import socket

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
