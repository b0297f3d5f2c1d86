"""Makes the user's module importable in processes that user code starts.

Two kinds of libraries send functions to other processes. multiprocessing's "spawn" and "forkserver" send the
name of a function's module, and first run the file of __main__: that is this file, which adds a finder for
the user's module there. cloudpickle (joblib, loky) sends the source of modules that are registered by value,
as it does for a script's __main__. For both, an environment variable that children inherit has the location
of the code.
"""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import Any, Callable

FOLDER = os.path.dirname(os.path.abspath(__file__))
if __name__ == "__mp_main__":
    sys.path.insert(0, FOLDER)

from importhooks import after_import  # noqa: E402

CODE = "CLEARML_SERVING_CODE"  # name of the user's module and path of the code
BY_VALUE = ("cloudpickle", "joblib.externals.cloudpickle")


def announce(name: str, code: str, main: ModuleType) -> None:
    """Let child processes find the user's module; main replaces __main__."""
    os.environ[CODE] = f"{name}={code}"
    main.__file__ = os.path.join(FOLDER, "children.py")

    def register(cloudpickle: ModuleType) -> None:
        by_value = getattr(cloudpickle, "register_pickle_by_value", None)
        if by_value is not None and name in sys.modules:  # added in version 2
            by_value(sys.modules[name])

    for library in BY_VALUE:
        after_import(library, register)


class _Finder:
    """Finds the user's module at the path from which the worker has loaded it."""

    def __init__(self, name: str, code: str, spec_of: Callable[[str, str], Any]) -> None:
        self._name = name
        self._code = code
        self._spec_of = spec_of

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Return the spec of the user's module, None for any other."""
        return self._spec_of(self._code, name) if name == self._name else None


def _adopt() -> Any:
    """Set up a child of multiprocessing; returns the function that looks up names of __main__."""
    import importlib

    import usercode

    name, _, code = os.environ.get(CODE, "").partition("=")
    usercode.step_aside()
    if code:
        usercode.see(code)
        sys.meta_path.insert(0, _Finder(name, code, usercode.spec_of))

    def look_up(attribute: str) -> Any:
        if attribute.startswith("__") or not code:
            raise AttributeError(attribute)
        return getattr(importlib.import_module(name), attribute)

    return look_up


if __name__ == "__mp_main__":
    __getattr__ = _adopt()
