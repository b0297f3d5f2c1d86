"""Describes errors of user code for its author.

The frames of this folder, of Python's import system and of the event loop are removed, so that a traceback
starts and ends at lines that the user can change.
"""

from __future__ import annotations

import os
import traceback
from typing import Any

RUNTIME = os.path.dirname(os.path.abspath(__file__)) + os.sep
IMPORTERS = ("<frozen importlib", os.sep + "importlib" + os.sep)
LOOPS = (os.sep + "asyncio" + os.sep, os.sep + "uvloop" + os.sep)
LONGEST = 16 << 10  # bytes of a traceback that are kept: the start and the end
CHAIN = 16  # maximum number of exceptions in a chain


def user_traceback(error: BaseException) -> str:
    """Return the traceback without frames of the runtime, ending with the exception itself."""
    try:
        told = traceback.TracebackException.from_exception(error)
        _trim(told, CHAIN)
        text = "".join(told.format())
    except Exception as failure:  # a broken __repr__, a file that vanished, too deep a recursion
        text = f"{describe(error)} (its traceback cannot be shown: {type(failure).__name__})\n"
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]}\n  [... {len(text) - LONGEST} characters left out ...]\n{text[-LONGEST // 2 :]}"
    return text


def origin(error: BaseException) -> str:
    """Return where the exception was raised, "file:line", outside of this folder."""
    place, trace = "", error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith(RUNTIME):
            place = f"{file}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


def _trim(told: Any, limit: int) -> None:
    """Remove frames of the runtime from an exception and from its causes."""
    while told is not None and limit > 0:
        limit -= 1
        frames = [
            frame
            for frame in told.stack
            if not frame.filename.startswith(RUNTIME) and not any(mark in frame.filename for mark in IMPORTERS)
        ]
        while frames and any(mark in frames[0].filename for mark in LOOPS):
            del frames[0]
        told.stack = traceback.StackSummary.from_list(frames)
        for inner in getattr(told, "exceptions", None) or ():
            _trim(inner, limit)
        if told.__cause__ is not None:
            _trim(told.__context__, limit)
            told = told.__cause__
        else:
            told = told.__context__


def variable_hint(error: BaseException) -> str:
    """Return the remedy if a missing environment variable was read; "" for other errors."""
    if type(error) is not KeyError or len(error.args) != 1 or not isinstance(error.args[0], str):
        return ""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or trace.tb_frame.f_globals.get("__name__") != "os":
        return ""
    return (
        f"; user code finds only those variables of the service's environment that are allowed by name: set "
        f"{error.args[0]} and CLEARML_SERVING_WORKER_ENV={error.args[0]} (names with commas between) for the service"
    )


def text_of(error: BaseException) -> str:
    """Return str(error), even if its __str__ fails."""
    try:
        return str(error)
    except Exception as failure:
        return f"(its text cannot be shown: __str__ raised {type(failure).__name__})"


def describe(error: BaseException) -> str:
    """Return the exception in one line: the place in the code for a SyntaxError, else type and text."""
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        return f"{os.path.basename(error.filename)}:{error.lineno}: {error.msg}"
    text = text_of(error)
    name = type(error).__name__
    return f"{name}: {text}" if text else name
