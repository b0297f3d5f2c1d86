"""Connections that fail, against a server whose answers the tests choose."""

from __future__ import annotations

import re
import socket
import time

import pytest
from conftest import Scripted, reply

from clearml_serving_go import (
    AsyncClient,
    Client,
    ConnectError,
    ConnectionLostError,
    NotFoundError,
    RequestTimeoutError,
    UnavailableError,
)


def test_a_connection_is_used_again() -> None:
    server = Scripted(*[reply(200, "1")] * 3)
    with Client(server.url) as client:
        assert [client.predict("a", 1) for _ in range(3)] == [1, 1, 1]
    assert server.connections == 1


def test_a_connection_that_the_service_has_closed_is_not_used() -> None:
    server = Scripted(reply(200, "1", Connection="close"), reply(200, "2"))
    client = Client(server.url)
    assert client.predict("a", 1) == 1
    assert client.predict("a", 1) == 2


def test_an_idle_connection_that_ended_is_replaced() -> None:
    server = Scripted(reply(200, "1"), "drop", reply(200, "2"))
    client = Client(server.url)
    assert client.predict("a", 1) == 1
    idle = client._connections._idle[0].sock
    assert idle is not None
    idle.shutdown(socket.SHUT_RD)  # as seen when the service has ended it
    server.script.pop(0)
    assert client.predict("a", 1) == 2
    assert server.connections == 2


def test_a_request_that_may_have_been_processed_is_not_repeated() -> None:
    server = Scripted("drop", reply(200, "1"))
    with pytest.raises(ConnectionLostError):
        Client(server.url).predict("a", 1)
    assert len(server.requests) == 1


def test_an_idempotent_request_is_repeated() -> None:
    server = Scripted("drop", reply(200, "1"))
    assert Client(server.url).predict("a", 1, idempotent=True) == 1


def test_an_answer_that_is_cut_off_is_no_answer() -> None:
    server = Scripted("HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n\r\n[1,2")
    with pytest.raises(ConnectionLostError):
        Client(server.url).predict("a", 1)


def test_feedback_is_repeated() -> None:
    server = Scripted("drop", reply(200, '{"accepted": 1, "joined": 1}'))
    assert Client(server.url).feedback("a", 1, request_id="r").joined == 1


@pytest.mark.parametrize("status", [429, 503])
def test_a_refusal_with_a_time_is_repeated(status: int) -> None:
    server = Scripted(reply(status, Retry_After="0"), reply(status, Retry_After="0"), reply(200, "1"))
    assert Client(server.url).predict("a", 1) == 1


def test_a_refusal_without_a_time_is_not_repeated() -> None:
    server = Scripted(reply(503, '{"detail": "user code says so"}'), reply(200, "1"))
    with pytest.raises(UnavailableError, match="user code says so"):
        Client(server.url).predict("a", 1)
    assert len(server.requests) == 1


def test_retries_end() -> None:
    server = Scripted(*[reply(503, '{"error": "loading"}', Retry_After="0")] * 9)
    with pytest.raises(UnavailableError, match="loading"):
        Client(server.url, retries=2).predict("a", 1)
    assert len(server.requests) == 3


def test_errors_of_proxies_keep_their_text() -> None:
    server = Scripted(reply(404, "<html>no route</html>"))
    with pytest.raises(NotFoundError) as caught:
        Client(server.url).predict("a", 1)
    assert caught.value.detail == "<html>no route</html>"


def test_a_service_that_is_away() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    client = Client(url, retries=1)
    with pytest.raises(ConnectError, match="cannot connect"):
        client.predict("a", 1)
    assert not client.ready()


def test_a_service_that_says_nothing() -> None:
    server = Scripted("hang")
    begun = time.monotonic()
    with pytest.raises(RequestTimeoutError):
        Client(server.url).predict("a", 1, timeout=0.3)
    assert time.monotonic() - begun >= 0.3
    assert "x-request-timeout: 0." in server.requests[0].lower()


def test_the_time_of_infer_is_that_of_both_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Scripted(reply(200, '{"outputs": []}'))
    client = Client(server.url)

    def slow(*_: object, **__: object) -> dict[str, object]:
        time.sleep(0.2)
        return {"inputs": [{"name": "x", "datatype": "FP32"}]}

    monkeypatch.setattr(client, "metadata", slow)
    client.infer("a", {"x": [1.5]}, timeout=10)
    sent = re.search(r"(?i)x-request-timeout: ([0-9.]+)", server.requests[0])
    assert sent is not None
    assert float(sent[1]) <= 9.8
    with pytest.raises(RequestTimeoutError, match="over"):
        client.infer("a", {"x": [1.5]}, timeout=0.1)


def test_the_password_of_an_address_is_not_shown() -> None:
    for address in ("http://user:s3cret@host", "http://:s3cret@host", "http://host/?key=s3cret"):
        with pytest.raises(ValueError, match="service at host") as refused:
            Client(address)
        assert "s3cret" not in str(refused.value)


def test_the_key_is_sent_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Scripted(reply(200, "1"), reply(200, "1"))
    client = Client(server.url, key="csk_secret")
    client.predict("a b/c", 1, version=2)
    assert "POST /serve/a%20b/c/2 " in server.requests[0]
    assert "Authorization: Bearer csk_secret" in server.requests[0]
    assert "secret" not in repr(client)
    monkeypatch.setenv("CLEARML_SERVING_KEY", "csk_other")
    monkeypatch.setenv("CLEARML_SERVING_SERVE_URL", server.url)
    Client().predict("a", 1)
    assert "Authorization: Bearer csk_other" in server.requests[1]


def test_a_prefix_in_the_address() -> None:
    server = Scripted(reply(200, "1"))
    Client(server.url + "/ml/", serve_suffix="predict").predict("a", 1)
    assert server.requests[0].startswith("POST /ml/predict/a ")


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://host", "http://", "http://host/?a=1", "http://user@host"])
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(ValueError, match="service"):
        Client(url)


def test_what_is_wrong_with_arguments() -> None:
    with pytest.raises(ValueError, match="timeout"):
        Client(timeout=0)
    with pytest.raises(ValueError, match="timeout"):
        Client().predict("a", 1, timeout=-1)
    with pytest.raises(ValueError, match="empty"):
        Client().predict("/", 1)
    assert repr(AsyncClient("http://host:1")) == "AsyncClient('http://host:1')"
