"""The fixture for pytest, with the real program."""

from __future__ import annotations

from pathlib import Path

import pytest

from clearml_serving_go.pytest_plugin import LoadError, Trial, TrialError

CODE = """
class Preprocess:
    def process(self, data, state, collect_custom_statistics_fn=None):
        print("asked")
        if "ask" in data:
            return self.send_request(endpoint=data["ask"], data={})
        return {"y": data["x"] + 1}
"""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    path = tmp_path / "preprocess.py"
    path.write_text(CODE)
    return path


def test_an_answer(clearml_serving_test: Trial, code: Path) -> None:
    result = clearml_serving_test(code, engine="custom", request={"x": 1})
    assert result
    assert (result.status, result.answer) == (200, {"y": 2})
    assert "asked" in result.output


def test_an_expected_answer(clearml_serving_test: Trial, code: Path, tmp_path: Path) -> None:
    request = tmp_path / "request.json"
    request.write_text('{"x": 1}')
    assert clearml_serving_test(code, engine="custom", request=request, expect={"y": 2.05}, tolerance=0.1)
    result = clearml_serving_test(code, engine="custom", request=request, expect={"y": 3})
    assert not result
    assert result.differences


def test_an_error_of_the_code_is_a_result(clearml_serving_test: Trial, code: Path) -> None:
    result = clearml_serving_test(code, engine="custom", request={})
    assert not result.passed
    assert result.status == 500


def test_another_endpoint(clearml_serving_test: Trial, code: Path) -> None:
    result = clearml_serving_test(code, engine="custom", request={"ask": "features"}, stub={"features": {"age": 7}})
    assert result.answer == {"age": 7}


def test_code_that_cannot_be_loaded(clearml_serving_test: Trial, tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("def broken(")
    with pytest.raises(LoadError, match=r"broken\.py"):
        clearml_serving_test(broken, engine="custom", request={})


def test_a_trial_that_cannot_be_made(clearml_serving_test: Trial) -> None:
    with pytest.raises(TrialError, match="could not be found"):
        clearml_serving_test("nowhere.py", engine="custom", request={})
