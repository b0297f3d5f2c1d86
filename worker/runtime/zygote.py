"""Imports the heavy packages once, then forks workers on request.

The entry point: started by the Go side with a control socket as descriptor 3. It never runs
user code and stays at one thread: threads do not survive a fork. What it says and hears is
described in forks.py.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import socket
import sys

from forks import supervise, tell

_KEPT = sys.modules["__main__"]  # user code gets a __main__ of its own; ours must outlive that

# What the examples and most users' code import of the packages that exist.
WELL_KNOWN = {
    "numpy": ("numpy", "numpy.random", "numpy.linalg"),
    "joblib": ("joblib",),
    "pandas": ("pandas",),
    "sklearn": (
        "threadpoolctl",
        "sklearn.base",
        "sklearn.pipeline",
        "sklearn.compose",
        "sklearn.preprocessing",
        "sklearn.impute",
        "sklearn.linear_model",
        "sklearn.ensemble",
        "sklearn.tree",
        "sklearn.svm",
        "sklearn.neighbors",
        "sklearn.naive_bayes",
        "sklearn.decomposition",
        "sklearn.cluster",
    ),
    "xgboost": ("xgboost",),
    "lightgbm": ("lightgbm",),
}


def main() -> None:
    """Import, say so, fork until the end."""
    control = socket.socket(fileno=3)
    os.set_inheritable(3, False)
    os.closerange(4, 1 << 12)  # what whoever started Go left open is none of user code's business
    options = json.loads(sys.argv[1])
    imported, failed = [], {}
    for package in options["preload"]:
        for name in WELL_KNOWN.get(package, (package,)):
            tell(control, {"is": "importing", "name": name})
            try:
                importlib.import_module(name)
                imported.append(name)
            except Exception as error:  # a broken package must not take the others with it
                failed[name] = f"{type(error).__name__}: {error}"[:1000]
    if "sklearn.linear_model" in imported:
        rehearse()
    # Ours too, all of them: once an endpoint is loaded they are out of its import path.
    from child import Worker

    gc.collect()
    gc.freeze()
    try:
        threads = len(os.listdir("/proc/self/task"))
    except OSError:
        threads = 1
    tell(control, {"is": "ready", "threads": threads, "imported": imported, "failed": failed})
    Worker().live(supervise(control))


def rehearse() -> None:
    """Load and ask a model once: what libraries look up at first use is then there for all workers.

    Measured: scikit-learn searches all installed packages for plugins at its first prediction.
    """
    import io

    import joblib
    from sklearn.linear_model import LogisticRegression

    try:
        kept = io.BytesIO()
        joblib.dump(LogisticRegression().fit([[0.0], [1.0]], [0, 1]), kept)
        kept.seek(0)
        joblib.load(kept).predict([[0.0]])
    except Exception as error:  # a release that does it otherwise; workers then look it up themselves
        sys.stderr.write(f"rehearsal of scikit-learn failed: {type(error).__name__}: {error}\n")


if __name__ == "__main__":
    main()
