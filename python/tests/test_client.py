"""The client against a real service."""

from __future__ import annotations

import asyncio
import datetime
import threading
import time

import pytest
from conftest import PATIENCE, Service

from clearml_serving_go import (
    AsyncClient,
    Client,
    ConflictError,
    DeadlineError,
    FeedbackCounts,
    InvalidInputError,
    NotFoundError,
    OverloadedError,
    PayloadTooLargeError,
    RequestTimeoutError,
    ServingError,
    StatusError,
    UnavailableError,
    UserCodeError,
)

numpy = pytest.importorskip("numpy")
pandas = pytest.importorskip("pandas")


def test_values_of_every_kind_arrive_as_json(client: Client) -> None:
    table = pandas.DataFrame(
        {
            "age": [31, 54],
            "score": [0.1, numpy.nan],
            "city": ["Rome", None],
            "day": pandas.to_datetime(["2026-01-02", None]),
        }
    )
    for sent, got in (
        ({"x": 1}, {"x": 1}),
        ([[1, 2.5], [3, None]], [[1, 2.5], [3, None]]),
        (numpy.array([[1.5, 2.0]], "float32"), [[1.5, 2.0]]),
        (
            {"rows": numpy.arange(3), "n": numpy.int64(7), "ok": numpy.bool_(True)},
            {"rows": [0, 1, 2], "n": 7, "ok": True},
        ),
        (numpy.array(["2026-01-02"], "datetime64[ns]"), ["2026-01-02T00:00:00.000000000"]),
        ({"when": datetime.date(2026, 1, 2)}, {"when": "2026-01-02"}),
        (pandas.Series([1, 2]), [1, 2]),
        (
            table,
            [
                {"age": 31, "score": 0.1, "city": "Rome", "day": "2026-01-02T00:00:00"},
                {"age": 54, "score": None, "city": None, "day": None},
            ],
        ),
    ):
        assert client.predict("moody", sent) == {"got": got}
    assert client.predict("moody", b"\x00\x01") == {"bytes": 2, "type": "application/octet-stream"}
    assert client.predict("moody", {"do": "bytes"}) == b"\x00\xff"


def test_what_json_cannot_have_is_refused_before_it_is_sent(client: Client) -> None:
    with pytest.raises(ValueError, match="NaN"):
        client.predict("moody", [float("nan")])
    with pytest.raises(ValueError, match="same name: a"):
        client.predict("moody", pandas.DataFrame([[1, 2]], columns=["a", "a"]))
    with pytest.raises(TypeError, match="bytes"):
        client.predict("moody", {"image": b"x"})


def test_errors_are_typed_and_have_the_detail_of_the_service(client: Client) -> None:
    for do, kind, status, detail in (
        ("value error", InvalidInputError, 422, "age is missing"),
        ("fail", UserCodeError, 500, "out of luck"),
        ("limit", OverloadedError, 429, {"limit": 10}),
        ("teapot", StatusError, 418, "short and stout"),
    ):
        with pytest.raises(kind) as caught:
            Client(client._connections.url, retries=0).predict("moody", {"do": do})
        assert caught.value.status == status
        assert caught.value.detail == detail if not isinstance(detail, str) else detail in caught.value.detail
        assert caught.value.request_id
        assert caught.value.request_id in str(caught.value)
    assert isinstance(caught.value, ServingError)
    with pytest.raises(NotFoundError):
        client.predict("nothing", {})
    with pytest.raises(NotFoundError):
        client.predict("moody", {}, version=7)
    with pytest.raises(NotFoundError) as of_v2:
        client.infer("nothing", {"x": numpy.zeros(1)})
    assert "nothing" in of_v2.value.detail


def test_an_asked_for_pause_that_is_longer_than_the_time_is_not_waited_for(client: Client) -> None:
    with pytest.raises(OverloadedError) as caught:
        client.predict("moody", {"do": "limit"}, timeout=30)
    assert caught.value.retry_after == 60


def test_a_busy_endpoint_is_asked_again(client: Client) -> None:
    before = client.predict("moody", {"do": "calls"})
    with pytest.raises(UnavailableError):
        client.predict("moody", {"do": "busy"})
    assert client.predict("moody", {"do": "calls"}) - before == 1 + 1 + 3


def test_a_body_that_is_too_large(client: Client) -> None:
    with pytest.raises(PayloadTooLargeError):
        client.predict("moody", b"x" * (257 << 20))


def test_the_deadline_reaches_the_service(client: Client) -> None:
    with pytest.raises(RequestTimeoutError):
        client.predict("moody", {"do": "sleep", "seconds": 60}, timeout=1)
    with pytest.raises(DeadlineError):
        client.predict("moody", {"do": "sleep", "seconds": 60}, headers={"X-Request-Timeout": "0.5"})


def test_the_answer_says_who_answered(client: Client) -> None:
    answer = client.ask("moody", {"x": 1}, request_id="loan-4711")
    assert (answer.request_id, answer.endpoint, answer.status) == ("loan-4711", "moody", 200)


def test_one_client_serves_many_threads(client: Client) -> None:
    wrong: list[object] = []

    def ask(i: int) -> None:
        for k in range(20):
            got = client.predict("moody", {"i": i, "k": k})
            if got != {"got": {"i": i, "k": k}}:
                wrong.append(got)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not wrong


def test_tensors(client: Client) -> None:
    for dtype in ("float64", "float32", "float16", "int64", "int32", "int8", "uint8", "uint64"):
        x = numpy.array([[1, 2, 3]], dtype)
        got = client.infer("tensors", {"x": x, "w": numpy.array(["a", "ö"])})
        assert got["doubled"].dtype == x.dtype
        assert got["doubled"].tolist() == [[2, 4, 6]]
        assert got["words"].tolist() == ["A", "Ö"]
    got = client.infer("tensors", {"x": [[1.5, float(2)]]}, outputs=["doubled"])
    assert list(got) == ["doubled"]
    assert got["doubled"].tolist() == [[3, 4]]
    got = client.infer("tensors", {"x": [1, 2]}, datatypes={"x": "FP32"})
    assert (got["doubled"].dtype, got["doubled"].tolist()) == (numpy.float32, [2, 4])
    nan = client.infer("tensors", {"x": numpy.array([numpy.nan, numpy.inf])})["doubled"]
    assert numpy.isnan(nan[0])
    assert nan[1] == numpy.inf
    got = client.infer("tensors", pandas.DataFrame({"x": [1, 2], "w": ["a", "b"]}))
    assert got["words"].tolist() == ["A", "B"]


def test_tensors_that_cannot_be_sent(client: Client) -> None:
    for inputs, text in (
        ({"x": [[1, 2], [3]]}, "different lengths at depth 2"),
        ({"x": [1, [2]]}, "mixed"),
        ({"x": numpy.array([1 + 2j])}, "complex128"),
        ({"w": numpy.array([None], dtype=object)}, "neither text nor bytes"),
        ([1, 2], "mapping"),
    ):
        with pytest.raises((TypeError, ValueError), match=text):
            client.infer("tensors", inputs, datatypes={"x": "FP64"})


def test_tensors_without_numpy_are_lists(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    from clearml_serving_go import _tensors

    monkeypatch.setattr(_tensors, "numpy", None)
    got = client.infer("tensors", {"x": [[1.0, 2.5], [3.0, 4.0]], "w": ["a", "b"]})
    assert got == {"doubled": [[2.0, 5.0], [6.0, 8.0]], "words": ["A", "B"]}


def test_what_is_there(client: Client) -> None:
    assert client.ready()
    assert client.ready("moody")
    assert not client.ready("nothing")
    assert {"moody", "tensors"} <= {e["name"] for e in client.endpoints()}
    assert client.metadata("moody")["name"] == "moody"


def test_feedback(service: Service, client: Client) -> None:
    with pytest.raises(ConflictError):
        client.feedback("tensors", 1, request_id="a")
    service.run("feedback", "set", "--endpoint", "moody", "--prediction", "got.y", "--wait")
    answer = client.ask("moody", {"y": "b"})
    first = client.feedback("moody", "b", request_id=answer.request_id)
    assert first.accepted == 1
    assert first.joined + first.pending == 1  # predictions are stored after their answers
    assert client.feedback("moody", "b", request_id=answer.request_id).duplicate == 1
    many = client.feedback_many("moody", [{"request_id": f"r{i}", "truth": "a"} for i in range(10_001)])
    assert many == FeedbackCounts(accepted=10_001, joined=0, pending=10_001)
    with pytest.raises(InvalidInputError, match="key"):
        client.feedback("moody", "b", key="x")


def test_async(service: Service) -> None:
    service.run("feedback", "set", "--endpoint", "moody", "--prediction", "got.y", "--wait")

    async def ask() -> None:
        async with AsyncClient(service.url, timeout=PATIENCE) as client:
            got = await asyncio.gather(*(client.predict("moody", {"i": i}) for i in range(50)))
            assert got == [{"got": {"i": i}} for i in range(50)]
            assert (await client.infer("tensors", {"x": numpy.ones(2)}))["doubled"].tolist() == [2, 2]
            assert await client.ready("moody")
            assert (await client.metadata("moody"))["name"] == "moody"
            assert await client.endpoints()
            with pytest.raises(InvalidInputError):
                await client.ask("moody", {"do": "value error"})
            answer = await client.ask("moody", {"y": "b"})
            assert (await client.feedback("moody", "b", request_id=answer.request_id)).accepted == 1
            assert (await client.feedback("moody", "b", request_id=answer.request_id)).duplicate == 1
            rows = ({"request_id": f"async{i}", "truth": "a"} for i in range(3))
            assert await client.feedback_many("moody", rows) == FeedbackCounts(accepted=3, joined=0, pending=3)
            with pytest.raises(InvalidInputError, match="key"):
                await client.feedback("moody", "b", key="x")

    asyncio.run(ask())


def test_a_cancelled_request_is_ended_by_the_service(service: Service) -> None:
    async def ask() -> None:
        async with AsyncClient(service.url, timeout=PATIENCE, max_connections=2) as client:
            before = await client.predict("patient", {"do": "told"})
            # Neither the code nor the deadline ends it before the test gives up.
            long = 10 * PATIENCE
            task = asyncio.create_task(client.predict("patient", {"seconds": long}, timeout=long))
            begun = {**before, "begun": before["begun"] + 1}
            await until(client, begun)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(client, {**begun, "ended": before["ended"] + 1})
            # Both threads are free again.
            got = await asyncio.gather(*(client.predict("moody", {"i": i}) for i in range(2)))
            assert got == [{"got": {"i": i}} for i in range(2)]

    async def until(client: AsyncClient, want: dict[str, int]) -> None:
        end = time.monotonic() + PATIENCE
        while (got := await client.predict("patient", {"do": "told"})) != want:
            assert time.monotonic() < end, f"{got}, want {want}"
            await asyncio.sleep(0.05)

    asyncio.run(ask())
