"""Loads an endpoint from its spec.

The entry point of this folder for the process's own loop: load_endpoint. Owns the order of
events that user code sees: import, send_request on the class, Preprocess(), model_endpoint,
load.
"""

from __future__ import annotations

import gc
from typing import Any, Optional

import codec
import engines
import oracle
import signature
import tabular
import tracing
import versions
from answer import Answer, CodeError, LoadError
from awaiting import Awaiter
from call import send_request_for
from clearml_serving_worker import ModelEndpoint
from clientrequest import with_request, with_requests
from endpoint import Endpoint
from instancetask import offer
from owner import end_copy
from stack import CodeStack, ModelStack
from tracebacks import describe, user_traceback, variable_hint
from usercode import import_preprocess, missing_package, stand_in_for_main, step_aside
from variables import Variables

__all__ = ["Answer", "LoadError", "load_endpoint"]


def load_endpoint(spec: dict[str, Any], host: Any) -> Endpoint:
    """Import the endpoint's code, create its Preprocess, load its model; or raise LoadError.

    Called once in the life of a process, on its main thread: what the import changes
    (sys.path, sys.modules, __main__) stays. Afterwards the modules of the runtime are not importable.
    """
    name = spec["endpoint"]
    codec.nan_as_null = bool((spec.get("extra") or {}).get("nan_as_null"))
    method = (spec.get("extra") or {}).get("method") or ""
    engine = engines.engine_named(spec["engine"])
    asked = (spec.get("extra") or {}).get("oracle")
    kind = oracle.Oracle if asked else _kind(engine)
    awaiter = Awaiter()
    instance: Any = None
    file = (spec.get("extra") or {}).get("instance_file")
    if file:
        offer(file)
    if spec.get("code_path"):
        found = import_preprocess(spec["code_path"], spec.get("code_name") or "preprocess_code")
        instance = _instance(found, spec, send_request_for(host, engine.is_async))
    elif engine.needs_code:
        raise LoadError(
            f"endpoint '{name}' has no preprocess code, and the {engine.name} engine is nothing without: add a file "
            f"with a class Preprocess (clearml-serving model add --engine {engine.name} --preprocess preprocess.py ...)"
        )
    else:
        step_aside()
        stand_in_for_main()  # processes of the model must not run this process's __main__

    model = _user_load(instance, spec, awaiter)
    if model is None:
        model = engines.load_model(engine, spec.get("model_path") or "", name, method)
    predict = _predict(engine, instance, model, name, method)
    preprocess, take, columns = _method(instance, "preprocess"), None, None
    if preprocess is None and engine.predict is not None:
        columns = tabular.columns_of(model)
        if columns is not None:
            columns = columns._replace(none=signature.columns_with_none(model, columns))
        preprocess = tabular.step_for(columns, engines.rows_only(engine.name))
        take = tabular.take_for(columns, engine.name)
        predict = tabular.explained(predict)
    endpoint = kind(
        preprocess,
        predict,
        _method(instance, "postprocess"),
        Variables(spec.get("variables") or [], host.log),
        host.log,
        awaiter,
    )
    endpoint.instance, endpoint.model, endpoint.take = instance, model, take
    if getattr(type(instance), "raw_body", False) is True:  # not of an instance that answers for all names
        endpoint.decode = codec.raw_request
    endpoint.inputs = tuple(map(tuple, (spec.get("extra") or {}).get("inputs") or ()))
    if isinstance(endpoint, oracle.Oracle):
        endpoint.engine, endpoint.name, endpoint.code, endpoint.method = engine, name, asked, method
    endpoint.outputs = _outputs(spec, (method or "predict") if engine.predict is not None else "")
    if engine.predict is not None and endpoint.post is None and len(endpoint.outputs) == 1:
        endpoint.step_for = engines.steps_of(engine, model, endpoint.outputs, predict)
    endpoint.warnings += versions.warnings()
    if spec.get("signature"):
        endpoint.signature = signature.signature_of(engine, instance, model, method, columns, int(spec["max_frame"]))
    if spec.get("signature") and (spec.get("extra") or {}).get("tell_model"):
        endpoint.signature = signature.with_loaded(endpoint.signature, model)
    _show_request(endpoint, engine)
    _batch(endpoint, engine, spec, awaiter, host)
    if (spec.get("extra") or {}).get("traced"):
        endpoint.pre = tracing.measured("preprocess", endpoint.pre)
        endpoint.predict = tracing.measured("process", endpoint.predict)
        endpoint.post = tracing.measured("postprocess", endpoint.post)
    for warning in endpoint.warnings:
        host.log("warning", warning)
    # Loaded objects stay. The caller freezes them, so that full collections, the cause of the original's
    # worst latencies, skip them, and forks share them without copies.
    gc.collect()
    return endpoint


def _kind(engine: engines.Engine) -> type[Endpoint]:
    if not engine.is_async:
        return Endpoint
    from asyncendpoint import AsyncEndpoint

    return AsyncEndpoint


def _predict(engine: engines.Engine, instance: Any, model: Any, name: str, method: str) -> engines.Step:
    if engine.predict is None:
        return _method(instance, "process") or engines.nothing
    return engines.step_of(engine, model, method, name)


def _outputs(spec: dict[str, Any], usual: str) -> tuple[str, ...]:
    """Return the names of output tensors, from the endpoint's settings or from a computation elsewhere."""
    names = (spec.get("fields") or {}).get("output_name") or (spec.get("extra") or {}).get("outputs")
    if isinstance(names, (list, tuple)) and names:
        return tuple(map(str, names))
    return (usual,) if usual else ()


def _show_request(endpoint: Endpoint, engine: engines.Engine) -> None:
    """Pass the request to methods with the parameter for it."""
    steps = {"pre": "preprocess", "post": "postprocess"}
    if engine.predict is None:
        steps["predict"] = "process"
    for step, name in steps.items():
        shown = with_request(_method(endpoint.instance, name), endpoint.warnings)
        if shown is not None:
            setattr(endpoint, step, shown)
            endpoint.shows_request = True


def _batch(endpoint: Endpoint, engine: engines.Engine, spec: dict[str, Any], awaiter: Awaiter, host: Any) -> None:
    """Predict requests together, if the endpoint is configured for it."""
    rows = int((spec.get("extra") or {}).get("max_batch_size") or 0)
    together = _method(endpoint.instance, "process_batch") if engine.predict is None and not engine.is_async else None
    shown = with_requests(together, endpoint.warnings)
    if shown is not None:
        together, endpoint.shows_request = shown, True
    stack: Any = CodeStack(together, awaiter.run) if together is not None else None
    if stack is not None and (rows > 1 or _method(endpoint.instance, "process") is None):
        endpoint.predict = stack.step
    if rows <= 1:
        return
    if engine.is_async:
        raise LoadError(f"max_batch_size={rows} is not for {engine.name}, whose requests run side by side already")
    if engine.predict is not None:
        stack = ModelStack(endpoint.predict, host.log)
    elif stack is None:
        endpoint.warnings.append(
            f"max_batch_size={rows} has no effect, requests are processed one by one: the code has no method "
            "process_batch. Add `def process_batch(self, data, state, collect_custom_statistics_fn=None)`, which gets "
            "a list of what preprocess returned and returns as many results, or remove max_batch_size"
        )
        return
    endpoint.stack, endpoint.batch_rows = stack, rows


def _instance(found: Any, spec: dict[str, Any], send_request: Any) -> Any:
    """Create the user's Preprocess as the original does, but set model_endpoint earlier."""
    record = ModelEndpoint(spec.get("fields") or {})
    try:
        found.send_request = staticmethod(send_request)
        if not hasattr(found, "model_endpoint"):
            found.model_endpoint = record  # so that __init__ can use it
        instance = found()
        if getattr(instance, "model_endpoint", None) is not record:
            instance.model_endpoint = record
    except BaseException as error:
        end_copy(error)
        raise _failed(spec, error) from error
    return instance


def _user_load(instance: Any, spec: dict[str, Any], awaiter: Awaiter) -> Any:
    load = _method(instance, "load")
    if load is None:
        return None
    try:
        model = load(spec.get("model_path") or None)
        return awaiter.run(model) if hasattr(type(model), "__await__") else model
    except BaseException as error:
        end_copy(error)
        raise _failed(spec, error) from error


def _failed(spec: dict[str, Any], error: BaseException) -> CodeError:
    text = f"the code called sys.exit({error.code!r})" if isinstance(error, SystemExit) else describe(error)
    name = spec.get("code_name") or spec["endpoint"]
    hints = versions.hint(spec.get("model_path") or "") + variable_hint(error) + missing_package(error)
    return CodeError(name, text + hints, user_traceback(error))


def _method(instance: Any, name: str) -> Optional[Any]:
    method = getattr(instance, name, None)
    return method if callable(method) else None
