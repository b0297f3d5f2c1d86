"""The process that owns the worker's link to the Go side: no copy of it may use the link.

User code may fork: by os.fork, through a library, from C. The child then has a copy of the link's socket, of
the shared memory and of the stack. When user code returns in the child, it returns to a copy of the loop, which
must end instead of answering for its parent. The check is by process id, because C code can fork without
Python's at-fork handlers.
"""

from __future__ import annotations

import os
import sys
import traceback
from os import getpid
from typing import NoReturn, Optional

_owner = 0
CHILD = "a process that the endpoint's code has forked"


def take() -> None:
    """Make this process the owner of the link."""
    global _owner
    _owner = getpid()


def owned() -> bool:
    """Return whether this process may use the link."""
    return not _owner or getpid() == _owner


def end_copy(error: Optional[BaseException] = None) -> None:
    """End this process if it is a copy of the owner; error is the exception that user code has raised in it.

    Called where user code has returned to the runtime, and before each use of the link.
    """
    if not _owner or getpid() == _owner:
        return
    _leave(error)


def _leave(error: Optional[BaseException]) -> NoReturn:
    code = 1
    try:
        if isinstance(error, SystemExit):
            code = _exit_code(error)
        elif error is not None:
            traceback.print_exception(type(error), error, error.__traceback__)
            sys.stderr.write(
                f"{CHILD} (pid {getpid()}) was ended by this exception; process {_owner} answers the request\n"
            )
        else:
            sys.stderr.write(
                f"{CHILD} (pid {getpid()}) returned from the code to the worker's runtime and was ended there; process "
                f"{_owner} answers the request. End a child of os.fork with os._exit(0)\n"
            )
    except BaseException:
        pass  # nothing can be reported; the process ends anyway
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BaseException:
            pass
    # Without exit handlers: those belong to the owner (temporary folders, pools of processes).
    os._exit(code)


def _exit_code(error: SystemExit) -> int:
    """Return the exit code as the interpreter takes it from a SystemExit."""
    code = error.code
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    sys.stderr.write(f"{code}\n")
    return 1
