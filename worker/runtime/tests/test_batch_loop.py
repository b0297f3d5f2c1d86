"""The loop of a batching worker, over a real socket: what goes into a batch, and what Go is told."""

import json
import socket
import struct
import time

import pytest

import frames
from batch import serve_batches
from link import Link
from loop import Host

CODE = """
    import time
    class Preprocess:
        batches = []
        def preprocess(self, body, state, collect):
            time.sleep(body.get("slow", 0))
            if body.get("bad"):
                raise ValueError("bad")
            return [[float(n)] for n in range(body["rows"])]
        def process_batch(self, data, state, collect):
            self.batches.append([len(rows) for rows in data])
            return [len(rows) for rows in data]
"""


@pytest.fixture
def answer(load):
    """Give requests and other frames to a loop, and return its batches and what it sent, by request."""

    def run(*sent, limit=8, room=64 << 10):
        endpoint = load(CODE, extra={"max_batch_size": limit}).endpoint
        ours, theirs = socket.socketpair()
        host = Host(Link(theirs, 1 << 20, -1))
        memory = memoryview(bytearray(4096 + room))
        with ours, theirs:
            for frame in (*sent, frames.pack(frames.STOP, 0)):
                ours.sendall(frame)
            serve_batches(endpoint, host, memory[:4096].cast("Q"), memory[4096:], 1 << 20, 16)
            theirs.shutdown(socket.SHUT_WR)
            reader, got = frames.Reader(ours), {}
            while reader.fill():
                got.update((frame.id, frame) for frame in reader.frames())
        return endpoint.instance.batches, got

    return run


def request(number, rows=1, deadline=0.0, flags=0, **more):
    head = struct.pack("<dHI", deadline, 0, 0) + b"r"
    return frames.pack(frames.REQUEST, number, json.dumps({"rows": rows, **more}).encode(), head, flags)


def told(frame):
    """Return rows and requests of the batch that an answer ends."""
    return struct.unpack("<III", frame.head[-12:])[:2] if frame.flags & frames.FLAG_BATCH else None


def test_rows_are_counted_not_requests(answer):
    batches, got = answer(request(1, 3), request(2, 4), request(3, 2), request(4, 20), request(5), request(6))
    assert batches == [[3, 4], [2], [20], [1, 1]]
    assert [bytes(got[n].body) for n in range(1, 7)] == [b"3", b"4", b"2", b"20", b"1", b"1"]
    assert [told(got[n]) for n in range(1, 7)] == [None, (7, 2), (2, 1), (20, 1), None, (2, 2)]


def test_go_says_how_many_rows_are_in_time(answer):
    batches, _ = answer(frames.pack(frames.LIMIT, 2), *(request(n) for n in range(1, 6)))
    assert batches == [[1, 1], [1, 1], [1]]
    batches, _ = answer(frames.pack(frames.LIMIT, 100), *(request(n) for n in range(1, 11)))
    assert batches[0] == [1] * 8  # never more than the endpoint allows


def test_who_gave_up_is_not_executed(answer):
    batches, got = answer(
        request(1),
        request(2),
        frames.pack(frames.CANCEL, 2),
        request(3, deadline=time.monotonic() - 1),
        request(4, bad=1),
    )
    assert batches == [[1]]
    assert [got[n].flags for n in (2, 3)] == [frames.FLAG_CANCELLED] * 2
    assert (got[1].code, got[4].code) == (200, 422)


def test_a_deadline_that_passes_while_others_are_preprocessed_is_not_predicted(answer):
    batches, got = answer(request(1, deadline=time.monotonic() + 0.3), request(2, slow=0.6))
    assert batches == [[1]]
    assert got[1].flags == frames.FLAG_CANCELLED
    assert told(got[2]) == (1, 1)


def test_nested_requests_come_first_and_share_the_batch(answer):
    batches, got = answer(request(1, 1), request(2, 2, flags=frames.FLAG_NESTED))
    assert batches == [[2, 1]]
    assert told(got[1]) == (3, 2)


def test_answers_that_do_not_fit_into_the_memory_are_sent_all_the_same(answer):
    batches, got = answer(*(request(n) for n in range(1, 7)), room=40)
    assert [bytes(got[n].body) for n in range(1, 7)] == [b"1"] * 6
    assert told(got[6]) == (6, 6)
    assert batches == [[1] * 6]
