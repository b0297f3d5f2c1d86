"""Calls a function after the import of a library, without cost before.

User code may import a library long after its load, so settings of the library are applied at the import.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any, Callable, Optional

Call = Callable[[ModuleType], None]


class _Finder:
    """Finds no module itself; adds a call to the loader of another finder."""

    def __init__(self) -> None:
        self.waiting: dict[str, Call] = {}

    def find_spec(self, name: str, path: Optional[Sequence[str]] = None, target: Any = None) -> Any:
        """Find an expected module through the other finders."""
        if name not in self.waiting:
            return None
        for finder in list(sys.meta_path):
            find = None if finder is self else getattr(finder, "find_spec", None)
            spec = find(name, path, target) if find is not None else None
            if spec is not None:
                if spec.loader is not None:
                    self._extend(spec.loader, name)
                return spec
        return None

    def _extend(self, loader: Any, name: str) -> None:
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            call = self.waiting.pop(name, None)
            if call is not None:
                call(module)

        try:
            loader.exec_module = exec_module
        except AttributeError:
            pass  # a loader without room for attributes: there is no call for this module


_finder = _Finder()


def after_import(name: str, call: Call) -> None:
    """Call once after the module's import; at once if it has been imported already."""
    module = sys.modules.get(name)
    if module is not None:
        call(module)
        return
    _finder.waiting[name] = call
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
