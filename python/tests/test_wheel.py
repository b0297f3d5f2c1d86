"""The program in the package, and the script that makes the wheel."""

from __future__ import annotations

import doctest
import os
import runpy
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from clearml_serving_go import find_binary

TREE = Path(__file__).parents[2]


def test_the_program_is_found_where_installers_put_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda name, scheme="": str(tmp_path / (scheme or "environment")))
    with pytest.raises(FileNotFoundError, match="install the package again"):
        find_binary()
    for folder in ("posix_user", "environment"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "clearml-serving").touch()
        assert find_binary() == str(tmp_path / folder / "clearml-serving")


def make(folder: Path, out: str, platform: str) -> Path:
    for name, text in (("binary", '#!/bin/sh\necho program "$@"\n'), ("sbom", "{}"), ("beside/NOTICES", "licences")):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    for name in ("man/clearml-serving.1.gz", *(f"completions/clearml-serving.{s}" for s in ("bash", "zsh", "fish"))):
        (folder / "beside" / name).parent.mkdir(exist_ok=True)
        (folder / "beside" / name).write_text(name)
    words = [sys.executable, TREE / "packaging" / "wheel.py", "--platform", platform, "--version", "v1.2.3-rc.1"]
    for name in ("binary", "sbom", "beside"):
        words += ["--" + name, folder / name]
    env = {**os.environ, "SOURCE_DATE_EPOCH": "1800000000"}
    done = subprocess.run([*words, "--out", folder / out], env=env, capture_output=True, text=True, check=True)
    return Path(done.stdout.strip())


def test_the_same_input_makes_the_same_wheel(tmp_path: Path) -> None:
    first, second = (make(tmp_path, out, "linux-amd64-static") for out in ("one", "two"))
    assert first.name == "clearml_serving_go-1.2.3rc1-py3-none-musllinux_1_2_x86_64.whl"
    assert first.read_bytes() == second.read_bytes()


def test_the_wheel_is_installed_and_its_program_runs(tmp_path: Path) -> None:
    machine = {"x86_64": "linux-amd64-gnu", "aarch64": "linux-arm64-gnu"}.get(os.uname().machine, "darwin-arm64")
    if sys.platform != "linux":
        pytest.skip("the tag is that of Linux")
    wheel = make(tmp_path, "out", machine)
    with zipfile.ZipFile(wheel) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
    for name in ("sboms/clearml-serving-go.cyclonedx.json", "licenses/LICENSE", "licenses/NOTICES", "entry_points.txt"):
        assert f"clearml_serving_go-1.2.3rc1.dist-info/{name}" in names
    assert "clearml_serving_go/py.typed" in names
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    python = environment / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--no-index", "-q", wheel], check=True)
    for words in ([python, "-m", "clearml_serving_go"], [environment / "bin" / "clearml-serving"]):
        assert (
            subprocess.run([*words, "run", "m"], capture_output=True, text=True, check=True).stdout == "program run m\n"
        )
    for name, content in (
        ("man/man1/clearml-serving.1.gz", "man/clearml-serving.1.gz"),
        ("bash-completion/completions/clearml-serving", "completions/clearml-serving.bash"),
        ("zsh/site-functions/_clearml-serving", "completions/clearml-serving.zsh"),
        ("fish/vendor_completions.d/clearml-serving.fish", "completions/clearml-serving.fish"),
    ):
        assert (environment / "share" / name).read_text() == content
    version = [python, "-c", "import clearml_serving_go as c; print(c.__version__)"]
    assert subprocess.run(version, capture_output=True, text=True, check=True).stdout == "1.2.3rc1\n"


def test_versions() -> None:
    names = runpy.run_path(str(TREE / "packaging" / "wheel.py"), run_name="wheel")
    runner = doctest.DocTestRunner()
    for test in doctest.DocTestFinder().find(names["pep440"], globs=names):
        assert runner.run(test).failed == 0
    for wrong in ("main", "1.2.3+x", "1.2.3-beta.x"):
        with pytest.raises(SystemExit, match="no version"):
            names["pep440"](wrong)
