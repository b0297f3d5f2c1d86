"""Fixtures: an endpoint loaded from source text, and a host that remembers."""

import asyncio
import gc
import importlib
import json
import os
import sys
import textwrap

import pytest

from preprocess import load_endpoint

if os.environ.get("CLEARML_SERVING_TEST_PACKAGES"):  # make test-python has installed what the tests ask for
    pytest.importorskip = lambda name: importlib.import_module(name)


class Host:
    """Stands in for the process's own loop: answers send_request, keeps log lines."""

    def __init__(self):
        self.lines = []
        self.calls = []
        self.answer = (200, "application/json", b"{}")

    def call(self, url, version, body, content_type):
        self.calls.append((url, version, body, content_type))
        return self.answer

    async def call_async(self, url, version, body, content_type):
        await asyncio.sleep(0)
        return self.call(url, version, body, content_type)

    def log(self, level, text, key=""):
        self.lines.append((level, text))

    def text(self):
        return "\n".join(text for _, text in self.lines)


class Loaded:
    """An endpoint with a short way to ask it."""

    def __init__(self, endpoint, host):
        self.endpoint = endpoint
        self.host = host

    def ask(self, body=b"", content_type="application/json", **meta):
        if not isinstance(body, (bytes, memoryview)):
            body = json.dumps(body).encode()
        meta = {"sampled": False, "request_id": "r1", "depth": 0, "deadline": None, **meta}
        if self.endpoint.is_async:
            return asyncio.run(self.endpoint.handle_async(memoryview(body), content_type, meta))
        return self.endpoint.handle(memoryview(body), content_type, meta)

    def value(self, body=b"", content_type="application/json", **meta):
        answer = self.ask(body, content_type, **meta)
        assert answer.status == 200, answer.body
        return json.loads(answer.body)

    def detail(self, body=b"", **meta):
        answer = self.ask(body, **meta)
        return answer.status, json.loads(answer.body)["detail"]


@pytest.fixture(autouse=True)
def untouched_process():
    """Undo what loading an endpoint changes in a process that loads only one."""
    modules, path, hooks = dict(sys.modules), list(sys.path), list(sys.path_hooks)
    yield
    sys.path[:], sys.path_hooks[:] = path, hooks
    sys.path_importer_cache.clear()
    for name in set(sys.modules) - set(modules):
        # Libraries stay: most cannot be imported twice.
        if name in ("Preprocess",) or name.startswith(("py_code", "clearml_serving_worker._", "user_")):
            del sys.modules[name]
    sys.modules.update(modules)
    gc.unfreeze()


@pytest.fixture
def host():
    return Host()


@pytest.fixture
def load(tmp_path, host):
    """Load an endpoint from the source of its class, or of files of a folder."""

    def make(code=None, engine="custom", **spec):
        path = ""
        if isinstance(code, dict):
            folder = tmp_path / "code"
            for name, text in code.items():
                file = folder / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(textwrap.dedent(text))
            path = str(folder)
        elif code is not None:
            file = tmp_path / "preprocess.py"
            file.write_text(textwrap.dedent(code))
            path = str(file)
        whole = {
            "endpoint": "test/1",
            "engine": engine,
            "code_path": path,
            "code_name": "py_code_test_1",
            "model_path": "",
            "fields": {"engine_type": engine, "serving_url": "test", "version": "1"},
            "variables": [],
            "extra": {},
        }
        whole.update(spec)
        return Loaded(load_endpoint(whole, host), host)

    return make


@pytest.fixture
def process(load):
    """Load an endpoint whose process method has the given body, with `data` in hand."""

    def make(body, before="", **spec):
        return load(
            f"{textwrap.dedent(before)}\n"
            "class Preprocess:\n"
            "    def process(self, data, state, collect_custom_statistics_fn=None):\n"
            + textwrap.indent(textwrap.dedent(body), "        "),
            **spec,
        )

    return make
