"""Values of the mathematical functions of this process, by which the reader recognises the machine's variants."""

from __future__ import annotations

import ctypes
import math
import platform
from typing import Any

import numpy as np

from nativemodel.graph import Graph

COUNT = 4096
NEEDS = {
    "expit2": "exp",
    "sigmoid": "exp",
    "sigmoid2": "exp",
    "sigmoids": "exp",
    "softmaxC": "exp",
    "expC": "exp",
    "softmax": "numpy.exp",
    "exp": "numpy.exp",
    "isolation": "numpy.exp2",
    "sigmoidf": "expf",
    "sigmoidf2": "expf",
    "softmaxf": "expf",
    "expf": "expf",
}


def probes(graph: Graph) -> list[dict[str, Any]]:
    """Add the values of the functions that the graph's stages need."""
    needed = {NEEDS.get(stage.get("function", "")) for stage in graph.stages if stage["kind"] == "link"}
    found = []
    random = np.random.default_rng(0)
    x = np.concatenate([random.uniform(-1, 1, COUNT), random.uniform(-40, 40, COUNT), random.uniform(-760, 720, COUNT)])
    for name in sorted(n for n in needed if n is not None):
        if name == "exp":
            points, values = x, np.array([_exp(v) for v in x])
        elif name == "numpy.exp":
            with np.errstate(all="ignore"):
                points, values = x, np.exp(x)
        elif name == "numpy.exp2":
            points = x[x <= 0]
            with np.errstate(all="ignore"):
                values = 2 ** (points)
        else:
            function = _expf()
            if function is None:
                continue
            points = x[np.abs(x) < 110].astype(np.float32)
            values = np.array([function(float(v)) for v in points], dtype=np.float32)
        kind = "f32" if name == "expf" else "f64"
        found.append({"function": name, "x": graph.array(points, kind), "y": graph.array(values, kind)})
    return found


def linux() -> bool:
    """Tell whether the C library is GNU's."""
    return platform.libc_ver()[0] == "glibc"


def _exp(x: float) -> float:
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf


def _expf() -> Any:
    """Return expf of the C library that this process uses, None if it has none."""
    try:
        function = ctypes.CDLL(None).expf
    except (OSError, AttributeError, TypeError):
        try:
            function = ctypes.CDLL("libm.so.6").expf
        except (OSError, AttributeError):
            return None
    function.restype, function.argtypes = ctypes.c_float, [ctypes.c_float]
    return function
