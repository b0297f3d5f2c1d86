"""Runs the handler of a model archive of TorchServe as an endpoint.

The handler gets what TorchServe gives it: its files in one folder, which is the working directory, a context,
and one dict of inputs for each request.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import queue
import shutil
import sys
import tempfile
import threading
from typing import Any, Callable, NamedTuple
from urllib.parse import parse_qsl

HERE = os.path.dirname(os.path.abspath(__file__))
URLENCODED = "application/x-www-form-urlencoded"
ENDED = object()  # no further pieces of a streamed answer


class Item(NamedTuple):
    """One request: inputs by name, headers for the context, its id, the collector of its variables."""

    inputs: dict[str, Any]
    headers: dict[str, Any]
    request_id: str
    collect: Callable[[dict[str, Any]], None] | None


class LeftError(BaseException):
    """The client of a streamed answer has disconnected: the handler ends."""


class Preprocess:
    """The endpoint."""

    raw_body = True  # the handler gets bodies as TorchServe gives them

    def load(self, local_file_name: str | None) -> Any:
        """Put the archive together, import its handler and initialize it."""
        with open(os.path.join(HERE, "torchserve_archive.json"), encoding="utf-8") as file:
            settings = json.load(file)
        self._owner = os.getpid()
        self._folder = _model_dir(settings.get("serialized_file"), local_file_name)
        if not settings.get("package"):
            sys.path.insert(0, os.path.join(HERE, "library"))
        sys.path.insert(0, self._folder)
        os.chdir(self._folder)
        self._entry, initialize = _handler(settings["handler"], self._folder)
        context = importlib.import_module("ts.context")
        self._processor = context.RequestProcessor
        self._metrics = _Metrics()
        self._context = context.Context(
            settings["model_name"],
            self._folder,
            settings["manifest"],
            self._batch_size(),
            _gpu(),
            importlib.import_module("ts").__version__,
            True,
            self._metrics,
            settings.get("config") or {},
        )
        self._streams = bool(settings.get("streams"))
        initialize(self._context)
        return self._entry

    def _batch_size(self) -> int:
        given = getattr(self.model_endpoint, "auxiliary_cfg", None)
        size = given.get("max_batch_size") if isinstance(given, dict) else None
        return max(int(size), 1) if str(size or "").isdigit() else 1

    def preprocess(self, body: Any, state: dict[str, Any], collect: Any = None, request: Any = None) -> Item:
        """Make the inputs of a request as TorchServe makes them."""
        inputs, headers = _inputs(body, request.content_type if request is not None else "")
        for name, value in request.headers.items() if request is not None else ():
            headers[name] = value
        values = inputs.get("body")
        if collect is not None and isinstance(values, dict):
            collect(values)
        return Item(inputs, Fields(headers), request.request_id if request is not None else "", collect)

    def process(self, data: Item, state: dict[str, Any], collect: Any = None) -> Any:
        """Answer one request."""
        if self._streams:
            return self._streamed(data)
        return self._answers([data])[0]

    def process_batch(self, data: list[Item], states: Any, collects: Any = None) -> list[Any]:
        """Answer requests together, as TorchServe with a batch_size."""
        if self._streams:
            return [self._streamed(item) for item in data]
        return self._answers(data)

    def _answers(self, items: list[Item], send: Callable[[Any], None] | None = None) -> list[Any]:
        context = self._context
        context.request_ids = {index: item.request_id for index, item in enumerate(items)}
        context.request_processor = [self._processor(item.headers) for item in items]
        context.send_piece = send
        self._metrics.collect = [item.collect for item in items]
        try:
            results = self._entry([item.inputs for item in items], context)
        except Exception as error:
            code = getattr(error, "error_code", None)
            if type(error).__name__ == "PredictionException" and isinstance(code, int):
                raise _refusal(code, getattr(error, "message", str(error))) from error
            raise
        if not isinstance(results, list):
            raise TypeError(
                f"the handler returned a {type(results).__name__} instead of a list with one entry a request"
            )
        if len(results) != len(items):
            raise TypeError(f"the handler returned {len(results)} entries for {len(items)} requests")
        return [self._answer(index, result) for index, result in enumerate(results)]

    def _answer(self, index: int, result: Any) -> Any:
        """Return the answer of one request, with the status and the headers that the handler has set."""
        body = self._plain(result)
        status, _ = self._context.get_response_status(index)
        headers = dict(self._context.get_response_headers(index))
        kind = None
        for name in list(headers):
            if name.lower() in ("content-type", "content-length", "ts_stream_next"):
                value = headers.pop(name)
                kind = value if name.lower() == "content-type" else kind
        if status in (None, 200) and not headers and not kind and not isinstance(body, (bytes, str)):
            return body  # JSON, whose values may be variables
        return _response(body, status or 200, headers, kind)

    def _plain(self, result: Any) -> Any:
        if isinstance(result, bytearray):
            return bytes(result)
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(result, torch.Tensor):
            buffer = io.BytesIO()
            torch.save(result, buffer)
            return buffer.getvalue()
        return result

    def _streamed(self, item: Item) -> Any:
        """Run a handler that may send pieces of its answer before it returns: on a thread of its own."""
        pieces: queue.Queue[Any] = queue.Queue(maxsize=1)
        left = threading.Event()

        def put(piece: Any) -> None:
            while True:
                if left.is_set():
                    raise LeftError
                try:
                    pieces.put(piece, timeout=0.1)
                    return
                except queue.Full:
                    continue

        def run() -> None:
            try:
                end = ("end", self._answers([item], lambda ret: put(("piece", ret[0])))[0])
            except LeftError:
                return
            except BaseException as error:
                end = ("error", error)
            try:
                put(end)
            except LeftError:
                return

        thread = threading.Thread(target=run, name="handler", daemon=True)
        thread.start()
        kind, value = pieces.get()
        if kind == "piece":
            return _response(
                self._pieces(pieces, value, left, thread), 200, {}, self._context.get_response_content_type(0)
            )
        thread.join()
        if kind == "error":
            raise value
        return value

    def _pieces(self, pieces: Any, piece: Any, left: threading.Event, thread: threading.Thread) -> Any:
        try:
            while True:
                yield self._bytes(piece)
                kind, piece = pieces.get()
                if kind == "error":
                    raise piece
                if kind == "end":
                    yield self._bytes(getattr(piece, "body", piece))
                    return
        finally:
            left.set()
            thread.join()

    def _bytes(self, piece: Any) -> Any:
        piece = self._plain(piece)
        return piece if isinstance(piece, (bytes, str)) else json.dumps(piece, indent=2)

    def unload(self) -> None:
        """Remove the folder."""
        if getattr(self, "_owner", None) == os.getpid():
            os.chdir(HERE)
            shutil.rmtree(self._folder, ignore_errors=True)


class Fields(dict):  # type: ignore[type-arg]
    """Headers by name, in any case."""

    def get(self, name: str, default: Any = None) -> Any:
        """Return a header."""
        found = super().get(name)
        if found is None and isinstance(name, str):
            found = super().get(name.lower())
        return default if found is None else found


class _Metrics:
    """The metrics of the context: values become variables of the endpoint, if it logs their names."""

    def __init__(self) -> None:
        self.collect: list[Any] = []
        self.request_ids: dict[int, str] = {}

    def _add(self, name: str, value: Any, index: Any = None) -> None:
        for at, collect in enumerate(self.collect):
            if collect is not None and (index is None or at == index):
                collect({name: value})

    def add_counter(self, name: str, value: Any, idx: Any = None, dimensions: Any = None, **_: Any) -> None:
        """Take a value."""
        self._add(name, value, idx)

    add_counter_metric = add_counter

    def add_time(
        self, name: str, value: Any, idx: Any = None, unit: str = "ms", dimensions: Any = None, **_: Any
    ) -> None:
        """Take a value."""
        self._add(name, value, idx)

    add_time_metric = add_size = add_size_metric = add_time

    def add_percent(self, name: str, value: Any, idx: Any = None, dimensions: Any = None, **_: Any) -> None:
        """Take a value."""
        self._add(name, value, idx)

    add_percent_metric = add_percent

    def add_error(self, name: str, value: Any, dimensions: Any = None, **_: Any) -> None:
        """Take a value."""
        self._add(name, value)

    add_error_metric = add_error

    def add_metric(self, name: str, value: Any, unit: str = "", idx: Any = None, *_: Any, **__: Any) -> None:
        """Take a value."""
        self._add(name, value, idx)

    def add_metric_to_cache(self, metric_name: str, *_: Any, **__: Any) -> _Metric:
        """Return a metric, which takes values later."""
        return _Metric(self, metric_name)

    get_metric = add_metric_to_cache

    def set_request_ids(self, request_ids: Any) -> None:
        """Take the ids of the requests, which statistics do not have."""


class _Metric:
    def __init__(self, owner: _Metrics, name: str) -> None:
        self._owner, self._name = owner, name

    def add_or_update(self, value: Any, *_: Any, **__: Any) -> None:
        """Take a value."""
        self._owner._add(self._name, value)

    update = add_or_update


def _model_dir(name: str | None, file: str | None) -> str:
    """Return a folder with all files of the archive, and with the model under its name in the archive."""
    folder, archive = tempfile.mkdtemp(prefix="torchserve-"), os.path.join(HERE, "archive")
    for entry in os.listdir(archive):
        os.symlink(os.path.join(archive, entry), os.path.join(folder, entry))
    if name:
        if not file:
            raise RuntimeError(
                f"the endpoint has no model, which was {name} in the archive: give it one with --model-id"
            )
        os.symlink(os.path.abspath(file), os.path.join(folder, name))
    return folder


def _handler(name: str, folder: str) -> tuple[Callable[[Any, Any], Any], Callable[[Any], Any]]:
    """Return the function that answers, and the one that initializes."""
    path, _, function = name.partition(":")
    stem = os.path.basename(path)
    stem = stem[:-3] if stem.endswith(".py") else stem
    own = os.path.exists(os.path.join(folder, stem + ".py"))
    module = importlib.import_module(stem if own else f"ts.torch_handler.{stem}")
    entry = getattr(module, function or "handle", None)
    if entry is not None:
        return entry, lambda context: entry(None, context)
    if function:
        raise AttributeError(f"{stem}.py has no function {function}, which the archive names as its handler")
    classes = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and value.__module__ == module.__name__
    ]
    if len(classes) != 1:
        names = ", ".join(one.__name__ for one in classes) or "none"
        raise TypeError(
            f"{stem}.py needs a function handle or one class with a method handle; its classes: {names}"
        )
    handler = classes[0]()
    if not callable(getattr(handler, "handle", None)):
        raise TypeError(f"the class {classes[0].__name__} in {stem}.py has no method handle")
    return handler.handle, getattr(handler, "initialize", lambda context: None)


def _gpu() -> int | None:
    torch = sys.modules.get("torch")
    return 0 if torch is not None and torch.cuda.is_available() else None


def _inputs(body: Any, content_type: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the inputs of a request by name, and their headers."""
    kind = content_type.partition(";")[0].strip()
    inputs: dict[str, Any] = {}
    headers: dict[str, Any] = {}
    if hasattr(body, "getlist"):  # a form
        for name in body:
            for value in body.getlist(name):
                data = getattr(value, "data", None)
                of = "" if data is None else value.content_type.partition(";")[0].strip()
                inputs[name] = _decoded(value.encode() if data is None else data, of)
                headers[name] = {"content-type": of}
    elif not isinstance(body, bytes):  # arrays
        inputs["body"] = body
    elif kind.lower() == URLENCODED and body[:1] not in (b"{", b"["):
        for name, value in parse_qsl(body.decode("utf-8", "replace"), True):
            inputs[name], headers[name] = bytearray(value.encode()), {"content-type": ""}
    else:
        if kind.lower() == URLENCODED:  # the default type of curl, which is JSON here
            kind = "application/json"
        inputs["body"], headers["body"] = _decoded(body, kind), {"content-type": kind}
    return inputs, headers


def _decoded(value: bytes, kind: str) -> Any:
    """Decode JSON and text, as TorchServe; anything else, also if it is neither, is bytes."""
    try:
        if kind == "application/json":
            return json.loads(value.decode("utf-8"))
        if kind.startswith("text"):
            return value.decode("utf-8")
    except ValueError:
        pass
    return bytearray(value)


def _response(body: Any, status: int, headers: dict[str, str], kind: str | None) -> Any:
    from clearml_serving_worker import Response

    return Response(body, status, headers, kind)


def _refusal(code: int, text: str) -> Exception:
    from clearml_serving_worker import HTTPException

    return HTTPException(code, text)
