"""Runs the tutorials of examples/ as a reader would, and compares every answer with the framework's own.

    python e2e/examples/run.py [--binary bin/clearml-serving] [--keep] [NAME ...]

Starts a clearml-serving of its own in a scratch folder, runs the commands of each
examples/NAME/readme.md (all of them without NAME), asks each endpoint, and ends with a table. Then
the commands of the original's documentation (original.txt) are run as well. Ends with 1 when an
answer differs or a command fails. make examples brings what it needs.
"""

import argparse
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

import frameworks
import original
import table
import tutorial
from failure import CommandError
from service import Service

ROOT = Path(__file__).resolve().parents[2]
AT_A_TIME = 8  # concurrent requests to one endpoint
VERSION_LIMIT = 60  # seconds until a newly trained model must be served
ADDRESS = "http://127.0.0.1:8080"  # what the tutorials say
ELSEWHERE = {"chat", "embeddings", "onnx-ocr", "vllm"}  # end-to-end tests follow them
PLACEHOLDER = re.compile(r"<(\w*(?:service|model)_id\w*)>", re.IGNORECASE)
PRINTED_IDS = (("service", "New Serving Service created: id="), ("model", "new Model ID="))


class Reader:
    """Follows tutorials as a user: keeps the ids, and checks the served endpoints after each step."""

    def __init__(self, service: Service, rows: list) -> None:
        self.service = service
        self.rows = rows
        self.ids = {}  # "service": …, "model": …, as commands printed them
        self.where = ""  # the tutorial that is followed

    def follow(self, readme: Path) -> None:
        """Run a tutorial's commands from top to bottom."""
        self.where = readme.parent.name
        print(f"\n{table.bold(self.where)}", flush=True)
        training = []  # the commands that make a new version of the model
        for command in tutorial.read(readme):
            verb, words = command.verb(), command.words
            if command.is_set_up:
                continue  # the service runs already, and its variables are set
            if command.flag("--engine") == "triton":
                continue  # no package has the backends of Triton
            if words[0] == "pip3":
                self.look_for_packages(command)
                continue
            if words[0] == "python3" or verb == "model upload":
                training.append(command)
            if verb == "model canary" and training:
                self.train_again(command.flag("--input-endpoint-prefix"), training)
            self.run(command)

    def run(self, command: tutorial.Command) -> None:
        """Run one command, and compare what it deployed."""
        verb = command.verb()
        if verb == "create" and "service" in self.ids:
            return  # the previous tutorials have made it
        changes = verb in ("model add", "model auto-update", "model canary")
        output = self.shell(command.text + (" --wait" if changes else ""))
        if command.words[0] == "curl":
            self.compare_request(command, output)
        elif changes:
            self.compare_endpoint(command)

    def shell(self, text: str) -> str:
        """Run a command line with the ids and the address filled in; return what it printed."""
        line = PLACEHOLDER.sub(lambda mark: self._id(mark[1]), text)
        print(table.dim(f"  $ {line}"), flush=True)
        done = self.service.run(line.replace(ADDRESS, self.service.address))
        if done.returncode:
            raise CommandError(f"{line}\nended with {done.returncode}:\n{done.stdout}{done.stderr}".rstrip())
        for kind, mark in PRINTED_IDS:
            if mark in done.stdout:
                self.ids[kind] = done.stdout.partition(mark)[2].split()[0]
        if line.startswith("python3 "):
            told = [
                said for said in done.stdout.splitlines() if "test:" in said or said.startswith("trained")
            ]
            print("".join(f"    | {said}\n" for said in told), end="", flush=True)
        return done.stdout

    def _id(self, placeholder: str) -> str:
        kind = "model" if "model" in placeholder else "service"
        if kind not in self.ids:
            raise CommandError(f"<{placeholder}>: no command before this one has printed the id of a {kind}")
        return self.ids[kind]

    def elsewhere(self) -> "Reader":
        """Start over as another user, with a new serving service."""
        return Reader(self.service, self.rows)

    def look_for_packages(self, command: tutorial.Command) -> None:
        """The packages that a tutorial installs must be those that the examples are tested with."""
        installed = {package.metadata["Name"].lower() for package in metadata.distributions()}
        installed |= {name.removesuffix("-cpu") for name in installed}  # xgboost without CUDA
        named = (re.split("[<>=]", word)[0] for word in command.words[2:])
        missing = [name for name in named if name.lower() not in installed]
        if missing:
            raise CommandError(f"{command.text}\nrequirements/examples.in lacks {', '.join(missing)}")

    # Comparisons

    def compare_endpoint(self, command: tutorial.Command) -> None:
        """Compare what a command has just deployed."""
        verb, url = command.verb(), command.flag("--endpoint").strip("/")
        if verb == "model auto-update":
            self.compare(f"{url}/{self.newest(url)}", "deployed by itself")
        elif verb == "model canary":
            self.compare(url, "canary")
            if url == "test_model_sklearn_b":
                self.compare("test_model_pipeline", "asks the canary")
        else:
            version = command.flag("--version")
            self.compare(f"{url}/{version}" if version else url, command.flag("--engine"))

    def train_again(self, url: str, training: list) -> None:
        """Train another version of an automatically deployed model, and compare it."""
        before = self.newest(url)
        for command in training:
            self.shell(command.text)
        end = time.monotonic() + VERSION_LIMIT
        while self.newest(url) <= before:
            if time.monotonic() > end:
                raise CommandError(
                    f"{url}: no version newer than {before} within {VERSION_LIMIT} s of the training"
                )
            time.sleep(0.1)
        self.compare(f"{url}/{self.newest(url)}", "trained again")

    def newest(self, url: str) -> int:
        """The highest version of an endpoint that is served; 0 when there is none."""
        served = (live.rpartition("/") for live in self.service.served())
        return max((int(version) for name, _, version in served if name == url), default=0)

    def compare(self, url: str, note: str) -> None:
        """Send an endpoint all requests of its example, and compare each answer."""
        bodies = frameworks.framework_of(url).requests()
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            replies = list(pool.map(lambda body: self.service.ask(url, body), bodies))
        row = table.Row(self.where, url, note)
        for body, reply in zip(bodies, replies):
            right = self.expected(url, reply.model_id, body) if reply.status == 200 else None
            row.add(body, reply.body, right, reply.status)
        versions = Counter(reply.endpoint for reply in replies)
        if len(versions) > 1:
            shares = (
                f"{count} by /{answered.rpartition('/')[2]}" for answered, count in sorted(versions.items())
            )
            row.note += f": {', '.join(shares)}"
        self.add(row)

    def compare_request(self, command: tutorial.Command, output: str) -> None:
        """Compare the answer to a tutorial's curl with the framework's, and with what the tutorial says."""
        url = (
            next(word for word in command.words if word.startswith(ADDRESS))
            .partition("/serve/")[2]
            .rstrip("/")
        )
        file = command.flag("--data-binary")
        body = (self.service.work / file.lstrip("@")).read_bytes() if file else json.loads(command.flag("-d"))
        answer = json.loads(output)
        row = table.Row(self.where, url, "curl")
        row.add(body, answer, self.expected(url, self.service.ask(url, body).model_id, body), 200)
        if command.answer is not None and json.loads(command.answer) != answer:
            row.wrong.append(f"readme.md says {command.answer}, the answer is {output}")
        self.add(row)

    def expected(self, url: str, model_id: str, body: Any) -> Any:
        """The framework's own answer to a request."""
        if url == "test_model_pipeline":
            sides = [
                (side, self.service.ask(side, body))
                for side in ("test_model_sklearn_a", "test_model_sklearn_b")
            ]
            return frameworks.pipeline_answerer(*(frameworks.answerer(s, r.model_id) for s, r in sides))(body)
        return frameworks.answerer(url, model_id)(body)

    def add(self, row: table.Row) -> None:
        self.rows.append(row)
        print(f"    {row.url} ({row.note}): {row.verdict}", flush=True)


def main() -> int:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--binary", type=Path, default=ROOT / "bin/clearml-serving")
    arguments.add_argument("--keep", action="store_true", help="keep the scratch folder")
    arguments.add_argument("names", nargs="*", metavar="NAME", help="folders of examples/ (all)")
    chosen = arguments.parse_args()
    readmes = (ROOT / "examples").glob("*/readme.md")
    known = sorted(readme.parent.name for readme in readmes if readme.parent.name not in ELSEWHERE)
    unknown = [name for name in chosen.names if name not in known]
    if unknown:
        arguments.error(f"examples/{unknown[0]}/readme.md does not exist; there are: {', '.join(known)}")

    begun = time.monotonic()
    scratch = Path(tempfile.mkdtemp(prefix="clearml-serving-examples-"))
    rows, failures = [], []
    try:
        with Service(chosen.binary.resolve(), scratch) as service:
            os.environ.update(service.variables)  # for the SDK in this process
            service.lay_out(ROOT / "examples")
            reader = Reader(service, rows)
            for name in chosen.names or (name for name in known if name not in frameworks.APART):
                try:
                    reader.follow(service.work / "examples" / name / "readme.md")
                except CommandError as error:
                    failures.append(f"examples/{name}/readme.md: {error}")
                    print(table.red(f"  {error}"), flush=True)  # and continue with the next tutorial
            if not chosen.names:
                failures += original.check(reader)
    finally:
        failures += [f"{row.url} ({row.note}): {wrong}" for row in rows for wrong in row.wrong]
        if chosen.keep or failures or sys.exc_info()[0]:
            print(f"\nkept: {scratch} (up.log, work/)")
        else:
            shutil.rmtree(scratch, ignore_errors=True)

    print(f"\n{table.render(rows)}\n")
    requests = sum(row.requests for row in rows)
    took = f"{len(rows)} comparisons, {requests} requests, {time.monotonic() - begun:.0f} s"
    if failures:
        print(table.red(f"examples: {len(failures)} failures ({took})"))
        for failure in failures:
            print(f"\n{failure}")
        return 1
    print(table.green(f"examples: every answer is the framework's own ({took})"))
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # stops the service, too
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
