"""Fixture for pytest: tries preprocess code and a model as clearml-serving test does, without a service.

    def test_preprocess(clearml_serving_test):
        result = clearml_serving_test("preprocess.py", engine="sklearn", model="model.pkl", request={"x0": 1})
        assert result.answer == {"y": [1]}

pip install registers it: there is nothing to import.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Union

import pytest

from ._binary import NAME, find_binary
from ._encoding import encode

PathLike = Union[str, "os.PathLike[str]"]


class TrialError(Exception):
    """The trial could not be made: a missing file, a wrong word."""


class LoadError(Exception):
    """Code or model could not be loaded, as a service would refuse them."""

    def __init__(self, step: str, reason: str, traceback: Optional[str]) -> None:
        self.step, self.reason, self.traceback = step, reason, traceback
        super().__init__("\n".join(filter(None, [f"{step}: {reason}", traceback])))


@dataclass(frozen=True)
class TrialResult:
    """What code and model have answered.

    answer: the value of a JSON answer, else its text; None for a recording.
    passed: no error, and as expected where something was expected.
    differences: where the answer is not as expected, one text for each place.
    output: what the code has printed.
    """

    passed: bool
    status: Optional[int]
    content_type: Optional[str]
    answer: Any
    differences: list[Any]
    output: str
    report: Mapping[str, Any]

    def __bool__(self) -> bool:
        return self.passed


class Trial:
    """Runs the program's command test."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = 0

    def __call__(
        self,
        code: Optional[PathLike] = None,
        *,
        engine: str,
        request: Any,
        model: Optional[PathLike] = None,
        model_id: Optional[str] = None,
        endpoint: Optional[str] = None,
        content_type: Optional[str] = None,
        expect: Any = None,
        tolerance: Optional[float] = None,
        aux_config: Optional[Mapping[str, Any]] = None,
        stub: Optional[Mapping[str, Any]] = None,
        python: Optional[str] = None,
        timeout: float = 300.0,
    ) -> TrialResult:
        """Ask the code once, or with each request of a recording.

        request, expect, and the answers of stub: a pathlib.Path is the file, any other value is sent.
        python: the interpreter that runs the code, by default the one that runs the tests.
        """
        words = ["test", "--json", "--engine", engine, "--python", python or sys.executable]
        words += ["--request", self._file(request)]
        for flag, value in (
            ("--model", model),
            ("--model-id", model_id),
            ("--endpoint", endpoint),
            ("--content-type", content_type or (None if isinstance(request, Path) else encode(request)[1])),
            ("--tolerance", tolerance),
        ):
            if value is not None:
                words += [flag, os.fspath(value) if isinstance(value, os.PathLike) else str(value)]
        if expect is not None:
            words += ["--expect", self._file(expect)]
        if aux_config:
            words += ["--aux-config", *(f"{key}={value}" for key, value in aux_config.items())]
        if stub:
            words += ["--stub", *(f"{name}={self._file(answer)}" for name, answer in stub.items())]
        if code is not None:
            words.insert(1, os.fspath(code))
        return self._run(words, timeout)

    def _file(self, value: Any) -> str:
        if isinstance(value, Path):
            return str(value)
        self._files += 1
        path = self._folder / f"value-{self._files}"
        path.write_bytes(encode(value)[0])
        return str(path)

    def _run(self, words: list[str], timeout: float) -> TrialResult:
        try:
            done = subprocess.run([find_binary(), *words], capture_output=True, text=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired as e:
            raise TrialError(f"{NAME} {' '.join(words)}: not done after {timeout} s") from e
        try:
            report = json.loads(done.stdout)
        except ValueError:
            raise TrialError((done.stderr or done.stdout).strip() or f"{NAME} ended with {done.returncode}") from None
        if "error" in report:
            error = report["error"]
            raise TrialError("\n".join(filter(None, [error["message"], error["hint"]])))
        if "failure" in report:
            failure = report["failure"]
            raise LoadError(failure["step"], failure["reason"], failure["traceback"])
        return TrialResult(
            passed=report["passed"],
            status=report.get("status"),
            content_type=report.get("content_type"),
            answer=report.get("answer"),
            differences=report.get("differences", report.get("not_as_recorded", [])),
            output=done.stderr,
            report=report,
        )


@pytest.fixture
def clearml_serving_test(tmp_path: Path) -> Trial:
    """Try preprocess code and a model without a service; see clearml_serving_go.pytest_plugin.Trial."""
    return Trial(tmp_path)
