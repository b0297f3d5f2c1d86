"""The adapter for model archives of TorchServe, in mar/adapter, with handlers that need no torch."""

import json
import pathlib
import shutil
import sys
import textwrap
import threading

import pytest

ADAPTER = pathlib.Path(__file__).parents[3] / "mar" / "adapter"


@pytest.fixture
def archive(tmp_path, load, monkeypatch):
    """Load an endpoint of an archive with a handler and further files."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in sys.modules if name == "handler" or name.partition(".")[0] == "ts"]:
        monkeypatch.delitem(sys.modules, name)

    def make(handler, files=None, name="handler.py", settings=None, **spec):
        code = tmp_path / "code"
        shutil.copytree(ADAPTER, code, dirs_exist_ok=True)
        inside = code / "archive"
        inside.mkdir()
        (inside / name.partition(":")[0]).write_text(textwrap.dedent(handler))
        for file, text in (files or {}).items():
            (inside / file).write_text(text)
        given = {"handler": name, "model_name": "m", "manifest": {"model": {"modelName": "m"}}, "config": None}
        given.update(settings or {})
        (code / "torchserve_archive.json").write_text(json.dumps(given))
        return load({}, code_path=str(code), code_name="py_code_archive", **spec)

    return make


CLASS = """
    import json, os
    class Handler:
        def initialize(self, context):
            self.context = context
            with open("index_to_name.json") as file:  # the working directory is the archive
                self.names = json.load(file)
        def handle(self, data, context):
            return [{"of": self.names["0"], "got": self.shown(row)} for row in data]
        def shown(self, row):
            return {name: self.one(value) for name, value in row.items()}
        def one(self, value):
            return [type(value).__name__, value if isinstance(value, (str, dict, list)) else value.decode("latin-1")]
"""
NAMES = {"index_to_name.json": '{"0": "cat"}'}


@pytest.mark.parametrize(
    ("content_type", "body", "got"),
    [
        ("application/json", b'{"a": 1}', {"body": ["dict", {"a": 1}]}),
        ("application/json; charset=utf-8", b'"text"', {"body": ["str", "text"]}),
        ("application/json", b"{broken", {"body": ["bytearray", "{broken"]}),
        ("text/plain", b"words", {"body": ["str", "words"]}),
        ("image/png", b"\x89PNG", {"body": ["bytearray", "\x89PNG"]}),
        ("", b"\x89PNG", {"body": ["bytearray", "\x89PNG"]}),
        ("", b"", {"body": ["bytearray", ""]}),
        ("application/x-www-form-urlencoded", b"a=1&b=x%20y", {"a": ["bytearray", "1"], "b": ["bytearray", "x y"]}),
        ("application/x-www-form-urlencoded", b'{"a": 1}', {"body": ["dict", {"a": 1}]}),
        (
            "multipart/form-data; boundary=B",
            b'--B\r\nContent-Disposition: form-data; name="data"; filename="x.json"\r\n'
            b"Content-Type: application/json\r\n\r\n"
            b'[1]\r\n--B\r\nContent-Disposition: form-data; name="word"\r\n\r\nhi\r\n--B--\r\n',
            {"data": ["list", [1]], "word": ["bytearray", "hi"]},
        ),
    ],
)
def test_a_handler_gets_what_torchserve_gives_it(archive, content_type, body, got):
    assert archive(CLASS, NAMES).value(body, content_type) == {"of": "cat", "got": got}


def test_a_function_is_a_handler(archive):
    handler = """
        state = {}
        def answer(data, context):
            if data is None:
                state["model"] = context.system_properties["model_dir"]
                return None
            return [[context.get_request_id(0), context.manifest["model"]["modelName"], context.model_yaml_config["k"]]]
    """
    loaded = archive(handler, name="handler.py:answer", settings={"config": {"k": 3}})
    assert loaded.value({}, request_id="r9") == ["r9", "m", 3]


def test_a_handler_sets_status_and_headers(archive):
    handler = """
        from ts.utils.util import PredictionException
        class Handler:
            def handle(self, data, context):
                body = data[0]["body"]
                if body == "bad":
                    raise PredictionException("no such thing", 404)
                if body == "fails":
                    raise RuntimeError("broken")
                context.set_response_content_type(0, "image/png")
                context.set_response_header(0, "X-Kind", context.get_request_header(0, "X-Wanted") or "")
                context.set_response_status(201, "made", 0)
                return [b"PNG"]
    """
    loaded = archive(handler)
    answer = loaded.ask(b"x", "text/plain")
    assert (answer.status, answer.content_type, answer.body) == (201, "image/png", b"PNG")
    assert loaded.detail(b"bad", content_type="text/plain") == (404, "no such thing")
    assert loaded.ask(b"fails", "text/plain").status == 500


def test_the_model_is_in_the_archive_under_its_name(archive, tmp_path):
    weights = tmp_path / "stored-elsewhere"
    weights.write_text("weights")
    handler = """
        import os
        class Handler:
            def initialize(self, context):
                folder = context.system_properties["model_dir"]
                self.text = open(os.path.join(folder, context.manifest["model"]["serializedFile"])).read()
            def handle(self, data, context):
                return [self.text for _ in data]
    """
    settings = {"serialized_file": "m.pt", "manifest": {"model": {"modelName": "m", "serializedFile": "m.pt"}}}
    loaded = archive(handler, settings=settings, model_path=str(weights))
    assert loaded.ask(b"", "text/plain").body == b"weights"
    folder = loaded.endpoint.instance._folder
    assert pathlib.Path(folder).is_dir()
    loaded.endpoint.unload()
    assert not pathlib.Path(folder).exists()


def test_requests_are_handled_together(archive):
    handler = """
        class Handler:
            def handle(self, data, context):
                size = context.system_properties["batch_size"]
                return [[len(data), size, context.get_request_id(i)] for i, _ in enumerate(data)]
    """
    fields = {"engine_type": "custom", "serving_url": "t", "auxiliary_cfg": {"max_batch_size": "8"}}
    loaded = archive(handler, fields=fields, extra={"max_batch_size": 8})
    meta = {"sampled": False, "depth": 0, "deadline": None}
    cases = [loaded.endpoint.begin(i, b"{}", "application/json", {**meta, "request_id": f"r{i}"}) for i in range(3)]
    loaded.endpoint.stack.run(cases)
    assert [json.loads(loaded.endpoint.finish(case).body) for case in cases] == [[3, 8, f"r{i}"] for i in range(3)]


def test_wrong_answers_of_a_handler_are_errors(archive):
    loaded = archive("def handle(data, context):\n    return data and (data[0]['body'] or None)\n")
    for body, says in ((b'{"a": 1}', "instead of a list"), (b"[1, 2]", "2 entries for 1 requests")):
        answer = loaded.ask(body)
        assert answer.status == 500
        assert says in answer.body.decode()


def test_metrics_are_variables(archive):
    handler = """
        def handle(data, context):
            if data:
                context.metrics.add_counter("seen", 2)
                context.metrics.add_metric_to_cache("later", "count").add_or_update(5)
                return [{"y": 7}]
    """
    loaded = archive(handler, variables=["seen", "later", "y", "x"])
    assert json.loads(loaded.ask({"x": 1}, sampled=True).stats) == {"seen": 2, "later": 5, "y": 7, "x": 1}


STREAMS = """
    import threading
    from ts.handler_utils.utils import send_intermediate_predict_response
    ended = threading.Event()
    class Handler:
        def handle(self, data, context):
            count = int(data[0]["body"])
            if count < 0:
                raise ValueError("less than nothing")
            try:
                for i in range(count):
                    send_intermediate_predict_response([f"{i} "], context.request_ids, "ok", 200, context)
                return ["end"]
            finally:
                ended.set()
"""


def test_an_answer_in_pieces_is_a_stream(archive):
    loaded = archive(STREAMS, settings={"streams": True})
    assert b"".join(loaded.ask(b"3", "text/plain").stream) == b"0 1 2 end"
    assert loaded.ask(b"0", "text/plain").body == b"end"
    assert loaded.ask(b"-1", "text/plain").status == 422


def test_a_stream_that_nobody_reads_ends_its_handler(archive):
    loaded = archive(STREAMS, settings={"streams": True})
    stream = loaded.ask(b"1000000", "text/plain").stream
    assert next(stream) == b"0 "
    stream.close()
    import handler

    assert handler.ended.wait(60)
    assert not any(thread.name == "handler" for thread in threading.enumerate())


@pytest.mark.parametrize(
    ("handler", "says"),
    [
        ("x = 1\n", "needs a function handle or one class"),
        ("class A: pass\nclass B: pass\n", "its classes: A, B"),
        ("class A: pass\n", "has no method handle"),
        ("import nosuchmodule\n", "nosuchmodule"),
    ],
)
def test_a_handler_that_is_none_is_told(archive, handler, says):
    with pytest.raises(Exception, match=says):
        archive(handler)


def test_code_may_take_bodies_as_they_are(load):
    code = """
        class Preprocess:
            raw_body = True
            def process(self, data, state, collect_custom_statistics_fn=None):
                return [type(data).__name__, data.decode("latin-1") if isinstance(data, bytes) else sorted(data)]
    """
    loaded = load(code)
    assert loaded.value(b'{"a": 1', "application/json") == ["bytes", '{"a": 1']
    assert loaded.value(b"", "") == ["bytes", ""]
    form = b'--B\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--B--\r\n'
    assert loaded.value(form, "multipart/form-data; boundary=B") == ["Form", ["a"]]
    assert loaded.ask(b"none", "multipart/form-data; boundary=B").status == 422
