"""Runs coroutines for synchronous callers: async methods of a sync endpoint."""

from __future__ import annotations

import threading
import warnings
from typing import Any


class Awaiter:
    """Runs awaitables on its own event loop, which is created at the first use and then kept.

    It is kept because objects that user code creates on a loop (sessions, connections) are bound to it.
    """

    def __init__(self) -> None:
        self._loop: Any = None
        self._used = threading.Lock()

    def run(self, awaitable: Any) -> Any:
        """Wait for awaitable and return its result or raise its exception."""
        if _loop_runs() or not self._used.acquire(blocking=False):
            # The loop is running further up this stack (a request that arrived while a coroutine waits in
            # send_request), or on another thread. A separate loop can wait.
            return _in_thread(awaitable)
        try:
            return self._on_loop().run_until_complete(_wait(awaitable))
        finally:
            self._used.release()

    def loop(self) -> Any:
        """Return the loop, if one was created."""
        return self._loop

    def close(self) -> None:
        """Close the loop. May be called twice."""
        loop, self._loop = self._loop, None
        if loop is not None and not loop.is_running():
            loop.close()

    def _on_loop(self) -> Any:
        import asyncio

        if self._loop is None or self._loop.is_closed():
            self._loop = _set_loop() or asyncio.new_event_loop()
        return self._loop


def _loop_runs() -> bool:
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _set_loop() -> Any:
    """Return the loop that the process has set for this thread, on which an async endpoint's requests ran."""
    import asyncio

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            loop = asyncio.get_event_loop()
        except RuntimeError:
            return None
    return None if loop.is_closed() else loop


async def _wait(awaitable: Any) -> Any:
    return await awaitable


def _in_thread(awaitable: Any) -> Any:
    results: list[Any] = []
    errors: list[BaseException] = []

    def work() -> None:
        import asyncio

        try:
            results.append(asyncio.run(_wait(awaitable)))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
