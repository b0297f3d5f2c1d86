"""Task.current_task() and Logger.current_logger() of the ClearML SDK in user code.

In the original the serving processes have called Task.init, so both return the instance's task. Here the task
belongs to the Go side, which keeps it alive and ends it. User code gets an object of that task, created at
the first use: the SDK is not imported before user code imports it, output is not captured, and the end of a
worker does not change the task.
"""

from __future__ import annotations

import atexit
import functools
import os
import sys
import time
from types import ModuleType
from typing import Any

from importhooks import after_import

WAIT = 3.0  # seconds that the first call waits for the task, which is opened while endpoints load


class _InstanceTask:
    """The task in this process; a forked process creates its own object."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._pid = 0
        self._task: Any = None
        self._waited = False

    def get(self, task_class: Any) -> Any:
        """Return the Task, None if there is none yet or the server does not answer."""
        if self._pid == os.getpid():
            return self._task
        number = self._number()
        if not number:
            return None
        try:
            task = task_class.get_task(task_id=number)
        except Exception as error:
            sys.stderr.write(f"the instance's task {number} cannot be read: {type(error).__name__}: {error}\n")
            return None
        self._pid, self._task = os.getpid(), task
        atexit.register(self._flush, os.getpid())
        return task

    def _number(self) -> str:
        until = time.monotonic() + (0 if self._waited else WAIT)
        while True:
            try:
                with open(self._file, encoding="ascii") as file:
                    return file.read().strip()
            except OSError:
                pass  # does not exist yet
            if time.monotonic() >= until:
                self._waited = True
                return ""
            time.sleep(0.05)

    def _flush(self, pid: int) -> None:
        if self._task is not None and pid == os.getpid():
            self._task.flush()


def offer(file: str) -> None:
    """Make Task.current_task() return the task whose id is in file, unless user code has called Task.init."""
    instance = _InstanceTask(file)

    def extend(clearml: ModuleType) -> None:
        task_class: Any = getattr(clearml, "Task", None)
        original = getattr(getattr(task_class, "current_task", None), "__func__", None)
        if original is None:
            return  # a release with another implementation

        @functools.wraps(original)
        def current_task(cls: Any) -> Any:
            return original(cls) or instance.get(cls)

        task_class.current_task = classmethod(current_task)

    after_import("clearml", extend)
