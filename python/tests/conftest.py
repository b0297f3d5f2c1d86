"""A running service with endpoints of several kinds, and a server whose answers tests choose."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clearml_serving_go import Client, pytest_plugin

# What is waited for takes seconds; a busy machine gets minutes.
PATIENCE = 180

CODE = """
import time

from clearml_serving_worker import HTTPException, Response

calls = 0


class Preprocess:
    def process(self, data, state, collect_custom_statistics_fn=None, request=None):
        global calls
        calls += 1
        do = data.get("do") if isinstance(data, dict) else None
        if do == "calls":
            return calls
        if do == "value error":
            raise ValueError("age is missing")
        if do == "fail":
            raise RuntimeError("out of luck")
        if do == "limit":
            raise HTTPException(429, {"limit": 10}, headers={"Retry-After": "60"})
        if do == "busy":
            raise HTTPException(503, f"call {calls}", headers={"Retry-After": "0"})
        if do == "teapot":
            raise HTTPException(418, "short and stout")
        if do == "bytes":
            return Response(b"\\x00\\xff", content_type="application/octet-stream")
        if do == "sleep":
            time.sleep(data["seconds"])
        if isinstance(data, bytes):
            return {"bytes": len(data), "type": request.content_type}
        return {"got": data}
"""

PATIENT = """
import asyncio

begun = ended = 0


class Preprocess:
    async def process(self, data, state, collect_custom_statistics_fn=None):
        global begun, ended
        if data.get("do") == "told":
            return {"begun": begun, "ended": ended}
        begun += 1
        try:
            await asyncio.sleep(data["seconds"])
        except asyncio.CancelledError:
            ended += 1
            raise
"""

TENSORS = """
import numpy


class Preprocess:
    def process(self, data, state, collect_custom_statistics_fn=None):
        return {
            "doubled": numpy.asarray(data["x"]) * 2,
            "words": numpy.array([w.decode().upper() for w in data.get("w", [])], dtype=object),
        }
"""


def program() -> str:
    """Return the program under test."""
    return os.environ.get("CLEARML_SERVING_TEST_BINARY") or str(Path(__file__).parents[2] / "bin" / "clearml-serving")


@pytest.fixture(autouse=True)
def _program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the package find the program that was built here."""
    monkeypatch.setattr(pytest_plugin, "find_binary", program)


class Service:
    """A service in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("CLEARML", "TRAINS"))}
        self.env |= {"HOME": str(folder), "CLEARML_SERVING_HOME": str(folder / "data"), "NO_COLOR": "1"}
        self.env |= {"CLEARML_SERVING_PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
        words = [program(), "up"]
        for name in ("serve", "grpc", "api", "files", "admin"):
            words += [f"--{name}-addr", "127.0.0.1:0"]
        self.log = (folder / "log").open("w")
        self.process = subprocess.Popen(words, env=self.env, stdout=self.log, stderr=self.log, cwd=folder)
        self.url = self._wait()

    def _wait(self) -> str:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if self.process.poll() is not None:
                break
            try:
                url = json.loads((self.folder / "data" / "endpoints.json").read_text())["serve"]
                if Client(url).ready():
                    return str(url)
            except (OSError, ValueError, KeyError):
                pass
            time.sleep(0.05)
        raise AssertionError(f"the service does not start:\n{(self.folder / 'log').read_text()}")

    def run(self, *words: str) -> str:
        """Run a command of the program."""
        done = subprocess.run(
            [program(), *words], env=self.env, cwd=self.folder, capture_output=True, text=True, timeout=PATIENCE
        )
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def add(self, endpoint: str, code: str, engine: str = "custom") -> None:
        """Add an endpoint with code."""
        (self.folder / f"{endpoint}.py").write_text(code)
        self.run(
            *["model", "add", "--engine", engine, "--endpoint", endpoint, "--preprocess", f"{endpoint}.py", "--wait"]
        )

    def stop(self) -> None:
        """End the service."""
        self.process.terminate()
        self.process.wait(PATIENCE)
        self.log.close()


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Start a service with the endpoints moody and tensors (custom code), and patient (custom_async)."""
    found = Service(tmp_path_factory.mktemp("service"))
    try:
        found.run("create", "--name", "client tests")
        found.add("moody", CODE)
        found.add("tensors", TENSORS)
        found.add("patient", PATIENT, "custom_async")
        yield found
    finally:
        found.stop()


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    """Make a client of the service."""
    with Client(service.url, timeout=PATIENCE) as made:
        yield made


class Scripted:
    """Answers each connection's requests as a list of scripts says; "drop" ends the connection."""

    def __init__(self, *script: str) -> None:
        self.script, self.requests, self.connections = list(script), [], 0
        self.requests: list[str]
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with connection:
            data = b""
            while self.script:
                while b"\r\n\r\n" not in data:
                    more = connection.recv(65536)
                    if not more:
                        return
                    data += more
                head, _, data = data.partition(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: (\d+)", head)
                while length and len(data) < int(length[1]):
                    data += connection.recv(65536)
                data = data[int(length[1]) :] if length else data
                self.requests.append(head.decode())
                step = self.script.pop(0)
                if step == "drop":
                    return
                if step == "hang":
                    connection.recv(1)
                    return
                connection.sendall(step.encode())
                if "connection: close" in step.lower():
                    return

    def close(self) -> None:
        """Take no further connections."""
        self.listener.close()


def reply(status: int, body: str = "{}", **headers: str) -> str:
    """Return an answer in HTTP/1.1."""
    lines = [f"HTTP/1.1 {status} x", f"Content-Length: {len(body)}", "Content-Type: application/json"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines) + "\r\n\r\n" + body
