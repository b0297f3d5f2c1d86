"""The loop of a sync worker: which answers are sent together, by a clock that the requests move."""

import socket
import struct

import pytest

import frames
import loop
from answer import JSON, Answer
from link import Link


@pytest.fixture
def sends(monkeypatch):
    """Execute requests that take so many milliseconds each; return how many answers each send had."""

    def run(*takes):
        now = [100.0]
        monkeypatch.setattr(loop, "monotonic", lambda: now[0])

        class Endpoint:
            def handle(self, body, content_type, meta):
                now[0] += float(body) / 1000
                return Answer(200, JSON, b"1")

        ours, theirs = socket.socketpair()
        host = loop.Host(Link(theirs, 1 << 20, -1))
        memory = memoryview(bytearray(8192))
        sent = []

        def send(*parts):
            sent.append(len(b"".join(parts)) // size)

        size = len(frames.pack(frames.ANSWER, 1, b"1", frames.answer_head(JSON.encode(), b"", b"", ())))
        with ours, theirs:
            head = struct.pack("<dHI", 0, 0, 0) + b"r"
            all_of_them = [frames.pack(frames.REQUEST, n + 1, str(ms).encode(), head) for n, ms in enumerate(takes)]
            ours.sendall(b"".join(all_of_them) + frames.pack(frames.STOP, 0))
            monkeypatch.setattr(host.link, "send", send)
            loop.serve(Endpoint(), host, memory[:4096].cast("Q"), memory[4096:], 1 << 20, 16)
        return sent

    return run


@pytest.mark.parametrize(
    ("takes", "together"),
    [
        ([0.05] * 6, [6]),  # quick ones: all that came together
        ([0.3] * 9, [4, 4, 1]),  # none waits longer than a millisecond
        ([0.7, 0.7, 0.7], [2, 1]),
        ([5, 5], [1, 1]),  # slow ones: at once
        ([0.05, 5, 0.05, 5], [2, 1, 1]),  # the first slow one is a surprise, the second is not
        ([5, 0.05, 0.05, 0.05, 0.05, 0.05], [1, 1, 1, 3]),  # in time it is forgotten
    ],
)
def test_answers_are_sent_together_but_wait_no_longer_than_a_millisecond(sends, takes, together):
    assert sends(*takes) == together
