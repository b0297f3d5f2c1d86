"""Makes the golden files beside it: what the original's command line stores, and what it reads back.

    make e2e-original UPDATE=1

or by hand, from the top of the checkout, with a ClearML server that may be filled with test data:

    scripts/python-env.sh .venv-original requirements/original.txt
    bin/clearml-serving server --data-dir /tmp/d --api-addr 127.0.0.1:0 --files-addr 127.0.0.1:0 &
    eval "$(bin/clearml-serving env --data-dir /tmp/d)"
    .venv-original/bin/python serving/testdata/original/generate.py serving/testdata/original

Each scenario of scenarios.txt is a serving service and the commands that are run on it. For each of its
sections that is not empty, <scenario>.<section>.conf is the text that was stored, and
<scenario>.<section>.json the records that the original's own code made of that text. A scenario whose
text the original can write but not read has no .json. Model ids are replaced by numbers, so that every
run gives the same.

With the path of our binary as a second argument, the same commands are run with ours, and read with the
original's code all the same: e2e/original_test.go compares.
"""

import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import clearml_serving.__main__ as clearml_serving
from clearml import Task
from clearml_serving.serving.endpoints import CanaryEP, EndpointMetricLogging, ModelEndpoint, ModelMonitoring

READERS = {
    "endpoints": ModelEndpoint,
    "canary": CanaryEP,
    "model_monitoring": ModelMonitoring,
    "metric_logging": EndpointMetricLogging,
}

HERE = Path(__file__).resolve().parent

PBTXT = 'platform: "onnxruntime_onnx"\nmax_batch_size: 8\n# a # in a comment, a \\ and "quotes"\n'

TENSORS = """
    --input-size 1 28 28 --input-name INPUT__0 --input-type float32
    --output-size -1 10 --output-name OUTPUT__0 --output-type float32
"""


def scenarios():
    """Name -> commands, as they stand in scenarios.txt."""
    found, commands = {}, []
    for line in (HERE / "scenarios.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            commands = found[line.strip("[]")] = []
        elif line and not line.startswith("#"):
            commands.append(line)
    return found


def words(command, ids):
    values = {"$first": [ids[0]], "$second": [ids[1]], "$tensors": shlex.split(TENSORS)}
    return [value for word in shlex.split(command) for value in values.get(word, [word])]


def ours(binary, args):
    """Runs our command line; gives what it prints."""
    run = subprocess.run([binary, *args], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if run.returncode != 0:
        sys.exit(f"clearml-serving {' '.join(args)}: exit code {run.returncode}\n{run.stdout}{run.stderr}")
    return run.stdout


def original(args):
    """Runs the original's command line in a fork of this process, which saves the imports."""
    with tempfile.TemporaryFile("w+") as out:
        child = os.fork()
        if child == 0:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
            sys.argv, code = ["clearml-serving", *args], 1
            try:
                clearml_serving.main()
                code = 0
            except SystemExit as e:
                code = e.code
            finally:
                sys.stdout.flush()
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out.seek(0)
        text = out.read()
    if code != 0:
        sys.exit(f"clearml-serving {' '.join(args)}: exit code {code}\n{text}")
    return text


def after(text, words):
    return text.split(words, 1)[1].split()[0]


def run(*args):
    return ours(sys.argv[2], args) if len(sys.argv) > 2 else original(args)


def upload(service, name, *args):
    out = run("--id", service, "model", "upload", "--name", name, "--project", "golden", *args)
    return after(out, "new Model ID=")


def records(task, section):
    """What the original makes of a stored section, as its deserialize does."""
    make = READERS[section]
    stored = task.get_configuration_object_as_dict(name=section) or {}
    known = {
        key: {f: v for f, v in r.items() if hasattr(make.__attrs_attrs__, f)} for key, r in stored.items()
    }
    return {key: make(**r).as_dict() for key, r in known.items()}


def numbered(text, ids):
    for number, real in enumerate(ids, start=1):
        text = text.replace(real, f"{number:032x}")
    return text


def main(folder):
    service = after(run("create", "--name", "golden models"), "id=")
    Path("model.pkl").write_text("a model")
    ids = [
        upload(service, "first", "--url", "https://example.com/first.pkl", "--framework", "scikitlearn"),
        upload(service, "second", "--path", "model.pkl", "--tags", "golden tag", "b", "--publish"),
    ]
    Path("preprocess.py").write_text("class Preprocess:\n    pass\n")
    Path("config.pbtxt").write_text(PBTXT)
    Path("folder").mkdir()
    Path("folder/__init__.py").write_text("class Preprocess:\n    pass\n")
    for old in [*folder.glob("*.conf"), *folder.glob("*.json")]:
        old.unlink()
    for name, commands in scenarios().items():
        if name.startswith("only-original-") and len(sys.argv) > 2:
            continue
        service = after(run("create", "--name", "golden " + name, "--tags", "a", "b c"), "id=")
        for command in commands:
            run("--id", service, *words(command, ids))
        task = Task.get_task(task_id=service)
        written = []
        for section in READERS:
            text = task.get_configuration_object(name=section)
            if name != "empty" and text.strip() in ("", "{}"):
                continue
            path = folder / f"{name}.{section}"
            path.with_suffix(path.suffix + ".conf").write_text(numbered(text, ids), encoding="utf-8")
            written.append(section)
            try:
                read = records(task, section)
            except (TypeError, ValueError) as e:  # the original's own defect
                print(f"{name}: {section} is not read back by the original: {e}")
                continue
            text = json.dumps(read, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
            path.with_suffix(path.suffix + ".json").write_text(numbered(text, ids), encoding="utf-8")
        if name == "config":
            parameters = task.get_parameters_as_dict().get("General") or {}
            text = json.dumps(parameters, indent=2, sort_keys=True) + "\n"
            (folder / "config.General.json").write_text(text)
        print(f"{name}: {len(commands)} commands, {', '.join(written) or 'no section'}")


if __name__ == "__main__":
    target = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as work:
        os.chdir(work)
        main(target)
        os.chdir("/")
