"""Imports the heavy packages once, and forks workers on request.

The entry point: started by the Go side with a control socket as descriptor 3. It never runs user code and has
only one thread, because threads do not survive a fork. forks.py describes its protocol.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import json
import os
import signal
import socket
import sys

# The package for user code is in a separate folder, which stays on the path of workers and of the processes
# that they start.
sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "public"))

from forks import end_descendants, mark_with, supervise, tell

_KEPT = sys.modules["__main__"]  # user code gets a separate __main__; this one must stay alive

# Packages that the examples and most user code import, if they are installed.
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
    "asyncio": ("asyncendpoint",),  # of the runtime, which needs it
}


class Imports:
    """The remaining packages to import: some on demand, the rest when idle."""

    def __init__(self, control: socket.socket, packages: list[str]) -> None:
        self._control = control
        self._pending = {package: list(WELL_KNOWN.get(package, (package,))) for package in packages}
        self._packages = frozenset(packages)
        self._imported: list[str] = []
        self._failed: dict[str, str] = {}
        self._told = False
        self._parent = os.getppid()

    def left(self) -> bool:
        """Return whether step has work."""
        return not self._told

    def need(self, names: list[str]) -> None:
        """Import the packages that a worker, which is about to be forked, would otherwise import privately.

        A name is that of a package, all of which is needed then, or of a module in one.
        """
        before = len(self._imported)
        # A client waits. Garbage collections find almost nothing after imports, but would take a sixth
        # of their time.
        gc.disable()
        try:
            for name in names:
                package, dot, _ = name.partition(".")
                if not dot:
                    while package in self._pending:
                        self._one(package, self._pending[package][0])
                elif package in self._packages and name not in sys.modules and _is_module(name):
                    self._one(package, name)
            if len(self._imported) > before:
                gc.freeze()
        finally:
            gc.enable()

    def step(self) -> None:
        """Import one module; report when the last one is imported."""
        for package, names in self._pending.items():
            self._one(package, names[0])
            return
        settle()
        try:
            threads = len(os.listdir("/proc/self/task"))
        except OSError:
            threads = 1
        self._told = True
        facts = {"threads": threads, "imported": self._imported, "failed": self._failed}
        tell(self._control, {"is": "imported", **facts})

    def _leave(self, *_: object) -> None:
        if os.getppid() != self._parent:  # else another process has sent it
            end_descendants()
            os._exit(0)

    def _one(self, package: str, name: str) -> None:
        left = self._pending.get(package, [])
        last = left == [name]
        if last:
            del self._pending[package]
        elif name in left:
            left.remove(name)
        tell(self._control, {"is": "importing", "name": name})
        # An import may take seconds, in which the end of Go is not detected.
        before = signal.signal(signal.SIGTERM, self._leave)
        try:
            importlib.import_module(name)
            self._imported.append(name)
        except Exception as error:  # a broken package must not affect the others
            self._failed[name] = f"{type(error).__name__}: {error}"[:1000]
        finally:
            signal.signal(signal.SIGTERM, before)
        if package == "sklearn" and last and "sklearn.linear_model" in self._imported:
            rehearse()


def _is_module(name: str) -> bool:
    """Return whether there is such a module: in "from package import name" the name need not be one."""
    try:
        return importlib.util.find_spec(name) is not None
    except Exception:  # its package cannot be imported; its first use reports that
        return False


def settle() -> None:
    """Exclude present objects from later collections, so that forks continue to share them."""
    gc.collect()
    gc.freeze()


def main() -> None:
    """Fork until the end, and import when idle."""
    control = socket.socket(fileno=3)
    os.set_inheritable(3, False)
    os.closerange(4, 1 << 12)  # descriptors left open by the parent of Go are not for user code
    options = json.loads(sys.argv[1])
    mark_with(options.get("mark", 0))
    imports = Imports(control, options["preload"])
    # All modules of the runtime, because they are not importable after an endpoint is loaded.
    from child import Worker

    settle()
    tell(control, {"is": "ready"})
    Worker().live(supervise(control, imports))


def rehearse() -> None:
    """Load and call a model once, so that lazy look-ups of libraries are shared by all workers.

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
    except Exception as error:  # a release with another implementation; workers then look it up themselves
        sys.stderr.write(f"rehearsal of scikit-learn failed: {type(error).__name__}: {error}\n")


if __name__ == "__main__":
    main()
