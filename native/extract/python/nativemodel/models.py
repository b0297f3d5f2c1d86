"""The entry: which handler extracts which class, and the whole of an extraction."""

from __future__ import annotations

import importlib
import json
import platform
import sys
from typing import Any, Callable, Optional

import numpy as np

from nativemodel import arithmetic, proof
from nativemodel.graph import FORMAT, Graph, Output, RefusedError

Handler = Callable[[Any, Graph, int], dict[str, Output]]

PREPARED = ("prepare", "linear")

# Modules with a table HANDLERS: the full name of a class -> its handler. Subclasses are not covered: they may
# override anything.
MODULES = ("forests", "boosting", "xgb", "lgbm")
PACKAGES = {"sklearn": "scikit-learn"}


def handlers() -> dict[str, Handler]:
    table: dict[str, Handler] = {}
    for name in (*MODULES, *PREPARED):
        table.update(importlib.import_module(f"nativemodel.{name}").HANDLERS)
    return table


def handle(model: Any, graph: Graph, slot: int) -> dict[str, Output]:
    """Add the stages of a fitted model whose input is a slot, and return the outputs of its methods."""
    name = full_name(type(model))
    handler = handlers().get(name)
    if handler is None:
        raise RefusedError(f"there is no native form of the class {name}")
    try:
        return handler(model, graph, slot)
    except AttributeError as error:  # private attributes differ between releases
        raise RefusedError(f"the {name} of this release is not known: {error}") from error


def full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def extract(model: Any, path: str, proof_path: Optional[str] = None, seed: int = 0, rows: int = 2000) -> dict[str, Any]:
    """Write the model's file, and the material that proves it, or raise RefusedError. Returns the description."""
    if hasattr(model, "n_jobs"):
        model.n_jobs = 1  # of this process's copy: with several jobs the answers of forests vary
    graph = Graph()
    outputs = handle(model, graph, 0)
    library = type(model).__module__.split(".")[0]
    description: dict[str, Any] = {
        "format": FORMAT,
        "model": type(model).__name__,
        "library": PACKAGES.get(library, library),
        "releases": releases(),
        "columns": graph.columns,
        "stages": graph.stages,
        "methods": [_method(name, output) for name, output in outputs.items()],
        "probes": arithmetic.probes(graph),
        "notes": graph.notes,
    }
    description["hash"] = graph.write(path, description)
    if proof_path is not None:
        proof.write(model, graph, outputs, proof_path, description["hash"], seed, rows)
    return description


def _method(name: str, output: Output) -> dict[str, Any]:
    method: dict[str, Any] = {"name": name, "slot": output.slot, "type": output.type}
    if output.flat:
        method["flat"] = True
    if output.labels is not None:
        method["labels"] = [plain(label) for label in output.labels]
    if output.tolerance:
        method["tolerance"] = output.tolerance
    return method


def plain(label: Any) -> Any:
    """Return a class label as a value for JSON."""
    value = label.item() if isinstance(label, np.generic) else label
    if not isinstance(value, (str, int, float, bool)):
        raise RefusedError(f"its class {label!r} is of type {type(label).__name__}, which has no form in JSON")
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        raise RefusedError(f"its class {label!r} has no form in JSON") from None
    return value


def releases() -> dict[str, str]:
    """Return the releases of the packages of this process that matter."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for module, package in (
        ("numpy", "numpy"),
        ("scipy", "scipy"),
        ("sklearn", "scikit-learn"),
        ("xgboost",) * 2,
        ("lightgbm",) * 2,
    ):
        if module in sys.modules:
            found[package] = sys.modules[module].__version__
    return found
