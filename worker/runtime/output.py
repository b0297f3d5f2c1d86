"""The output of user code, with its level and the current request.

Each process writes to two pipes that the Go side reads line by line. A line of Python code begins with a mark
if it has a level other than information or belongs to a request: MARK, a digit for the level, the request's
id, END. A log record of several lines is one line of the pipe, with BREAK between. All other output (C code,
other programs) is logged unchanged. If user code replaces the pipe's file, nothing is marked.
"""

from __future__ import annotations

import io
import os
import sys
import threading
import traceback
import warnings
from types import ModuleType
from typing import Any, Callable, Optional

from importhooks import after_import

MARK, END, BREAK = "\x1e", "\x1f", "\x1d"
DEBUG, INFO, WARNING, ERROR = "0", "1", "2", "3"
KEPT = 400  # maximum characters of stderr in an error of the load


def _no_request() -> str:
    return ""


request_id: Callable[[], str] = _no_request  # set by the server
on_warning: Optional[Callable[[Any], None]] = None  # called with each displayed warning


class Stream(io.TextIOWrapper):
    """sys.stdout or sys.stderr of a worker."""

    def __init__(self, number: int) -> None:
        raw = open(number, "wb", closefd=False)  # noqa: SIM115
        super().__init__(raw, encoding="utf-8", errors="backslashreplace", line_buffering=True)
        self.mode = "w"
        self._pipe = _file(number)
        self._fresh = True  # at the beginning of a line
        self.last = ""

    def write(self, text: str) -> int:
        """Write text, with a mark on each line."""
        if type(text) is not str or not text:
            return super().write(text)
        mark = self._mark(INFO)
        whole = text if self._fresh is False else mark + text
        if mark and "\n" in text[:-1]:
            whole = whole[:-1].replace("\n", "\n" + mark) + whole[-1]
        self._fresh = text[-1] == "\n"
        self.last = (self.last + text[-KEPT:])[-KEPT:]
        super().write(whole)
        return len(text)

    def record(self, level: str, text: str) -> None:
        """Write a text, possibly of several lines, as one record."""
        text = text.rstrip("\n")
        mark = self._mark(level)
        self.last = (self.last + text[-KEPT:] + "\n")[-KEPT:]
        start = "" if self._fresh else "\n"
        self._fresh = True
        super().write(f"{start}{mark}{text.replace(chr(10), BREAK) if mark else text}\n")

    def _mark(self, level: str) -> str:
        request = request_id()
        if level == INFO and not request:
            return ""
        if _file(self.fileno()) != self._pipe:
            return ""
        return f"{MARK}{level}{request if request.isprintable() else ''}{END}"


def _file(number: int) -> Optional[tuple[int, int]]:
    try:
        found = os.fstat(number)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def take_over() -> None:
    """Create the streams of this process, and give logs and warnings their level."""
    sys.stdout, sys.stderr = Stream(1), Stream(2)
    sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr
    warnings.showwarning = _show_warning
    threading.excepthook = _thread_failed
    after_import("logging", _mark_logs)


def last_words() -> str:
    """Return the last output of stderr, as the end of an error's text; "" for none."""
    said = getattr(sys.stderr, "last", "")
    lines = [line.strip() for line in str(said).splitlines() if line.strip()]
    return f"; it wrote last: {' | '.join(lines[-3:])}" if lines else ""


def _record(level: str, text: str) -> None:
    stream: Any = sys.stderr
    if isinstance(stream, Stream):
        stream.record(level, text)
    elif stream is not None:
        stream.write(text)


def _show_warning(
    message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Optional[str] = None
) -> None:
    text = warnings.formatwarning(message, category, filename, lineno, line)
    if on_warning is not None:
        on_warning(message)
    try:
        if file is None:
            _record(WARNING, text)
        else:
            file.write(text)
    except OSError:
        pass


def _thread_failed(told: Any) -> None:
    """Report an exception that has ended a thread, in one record."""
    if told.exc_type is SystemExit:
        return
    name = told.thread.name if told.thread is not None else str(threading.get_ident())
    trace = "".join(traceback.format_exception(told.exc_type, told.exc_value, told.exc_traceback))
    _record(ERROR, f"Exception in thread {name}:\n{trace}")


def _mark_logs(logging: ModuleType) -> None:
    """Make handlers that write to these streams add the level of their records."""
    handler: Any = logging.StreamHandler
    emit = handler.emit
    if getattr(emit, "marks", False):
        return

    def marked(self: Any, record: Any) -> None:
        stream = self.stream
        if not isinstance(stream, Stream):
            emit(self, record)
            return
        try:
            stream.record(_level(record.levelno), self.format(record))
        except RecursionError:
            raise
        except Exception:
            self.handleError(record)

    marked.marks = True
    handler.emit = marked


def _level(number: int) -> str:
    if number >= 40:
        return ERROR
    if number >= 30:
        return WARNING
    return INFO if number >= 20 else DEBUG
