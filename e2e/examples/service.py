"""A clearml-serving process: started on free ports in a scratch folder, and stopped at the end."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

START_LIMIT = 60  # seconds
# The SDK looks for the repository in a thread, by starting git, while it forks its reporter.
# Sometimes the fork inherits the pipe that the thread waits on, and the training hangs for 300 s.
SDK_SETTINGS = "sdk.development.vcs_repo_detect_async: false\n"
STOP_LIMIT = 60  # seconds; requests under way may finish
COMMAND_LIMIT = 600  # seconds; a training on a busy machine


class Reply(NamedTuple):
    """An answer of an endpoint. Status 404 is an answer, too."""

    status: int
    body: Any
    endpoint: str  # which endpoint and version answered, behind a canary
    model_id: str


class Service:
    """A running `clearml-serving up`; a context manager that stops it."""

    def __init__(self, binary: Path, scratch: Path) -> None:
        self.scratch = scratch
        self.work = scratch / "work"  # the working directory of a reader
        self.log = scratch / "up.log"
        self._data = scratch / "data"
        self._binary = binary
        self._process = None
        self.address = ""
        self.variables = {}

    def __enter__(self) -> "Service":
        tools = self.scratch / "bin"
        for folder in (tools, self.work, self.scratch / "home"):
            folder.mkdir()
        (tools / "clearml-serving").symlink_to(self._binary)
        (self.scratch / "home" / "clearml.conf").write_text(SDK_SETTINGS)
        self.variables = {
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("CLEARML_", "TRAINS_"))
            },
            "PATH": os.pathsep.join([str(tools), str(Path(sys.executable).parent), os.environ["PATH"]]),
            "HOME": str(self.scratch / "home"),  # the SDK's cache, and no clearml.conf but ours
            "CLEARML_SERVING_HOME": str(self._data),
            "NO_COLOR": "1",
            "CLEARML_SERVING_REQUEST_LOG_FILE_TIME": "2",  # as examples/retrain says
        }
        anywhere = "127.0.0.1:0"
        command = ["clearml-serving", "up", "--python", sys.executable]
        for flag in ("--serve-addr", "--grpc-addr", "--api-addr", "--files-addr", "--admin-addr"):
            command += [flag, anywhere]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                executable=self._binary,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.variables,
                cwd=self.work,
                start_new_session=True,  # Ctrl-C in the terminal is for this program, which stops the service
            )
        try:
            self._await_start()
            self.variables.update(json.loads(self.run("clearml-serving --json env").stdout))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_reason: object) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_LIMIT)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
                raise RuntimeError(
                    f"clearml-serving did not end within {STOP_LIMIT} s; its log: {self.log}"
                ) from None

    def _await_start(self) -> None:
        registry = self._data / "endpoints.json"
        for _ in range(START_LIMIT * 10):
            if self._process.poll() is not None:
                raise RuntimeError(f"clearml-serving ended while it started:\n{self.log.read_text()}")
            if registry.exists():
                addresses = json.loads(registry.read_text())
                self.address = addresses.get("serve", "")
                if self.address and self._answers(addresses["api"] + "/livez"):
                    return
            time.sleep(0.1)
        raise RuntimeError(f"clearml-serving did not start within {START_LIMIT} s:\n{self.log.read_text()}")

    @staticmethod
    def _answers(url: str) -> bool:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return True
        except OSError:
            return False

    def run(self, command: str) -> subprocess.CompletedProcess:
        """Run a shell command in the reader's folder, and return its output."""
        return subprocess.run(
            ["bash", "-c", command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=self.variables,
            cwd=self.work,
            timeout=COMMAND_LIMIT,
        )

    def ask(self, url: str, body: Any) -> Reply:
        """POST a body to an endpoint."""
        request = urllib.request.Request(
            f"{self.address}/serve/{url}",
            body if isinstance(body, bytes) else json.dumps(body).encode(),
            {"Content-Type": "image/png" if isinstance(body, bytes) else "application/json"},
            method="POST",
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                text, status, headers = response.read(), response.status, response.headers
        except urllib.error.HTTPError as error:
            with error:
                text, status, headers = error.read(), error.code, error.headers
        return Reply(
            status,
            json.loads(text),
            headers.get("X-Clearml-Endpoint", ""),
            headers.get("X-Clearml-Model-Id", ""),
        )

    def served(self) -> list:
        """The urls of the endpoints that answer now."""
        with urllib.request.urlopen(f"{self.address}/status", timeout=10) as response:
            endpoints = json.load(response)["endpoints"]
        return [endpoint["endpoint"] for endpoint in endpoints if endpoint["state"] == "ready"]

    def lay_out(self, examples: Path) -> None:
        """Put a copy of the examples where the tutorials expect them."""
        ignored = shutil.ignore_patterns("__pycache__", "*.pkl", "*.pyc")
        shutil.copytree(examples, self.work / "examples", ignore=ignored)
