"""The table that a run ends with, and the few colours of a terminal."""

import json
import os
import sys
from typing import Any

import frameworks

SHOWN = 44  # characters of an answer in the table
SHOWN_WRONG = 3  # reported differences of one comparison
COLUMNS = ("example", "endpoint", "", "requests", "answer", "framework's own answer", "")


class Row:
    """One comparison: an endpoint's answers beside the framework's own."""

    def __init__(self, example: str, url: str, note: str) -> None:
        self.example = example
        self.url = url
        self.note = note
        self.requests = 0
        self.wrong = []  # what is wrong, the first few
        self._wrong_answers = 0
        self._first = ("", "")

    def add(self, body: Any, answer: Any, expected: Any, status: int) -> None:
        """Take in one request with its two answers."""
        self.requests += 1
        if self.requests == 1:
            self._first = (_compact(answer), _compact(expected))
        if status != 200 or not frameworks.same(answer, expected):
            self._wrong_answers += 1
            if self._wrong_answers <= SHOWN_WRONG:
                sent, said, right = (_cut(_compact(value), 400) for value in (body, answer, expected))
                self.wrong.append(f"{sent}\n  service, status {status}: {said}\n  framework: {right}")

    @property
    def verdict(self) -> str:
        """Whether all answers were right."""
        if self._wrong_answers:
            return f"FAIL ({self._wrong_answers} of {self.requests})"
        return "FAIL" if self.wrong or not self.requests else "ok"

    def cells(self) -> tuple:
        """The row as texts, in the order of COLUMNS."""
        answer, expected = (_cut(text, SHOWN) for text in self._first)
        return (self.example, self.url, self.note, str(self.requests), answer, expected, self.verdict)


def render(rows: list) -> str:
    """The aligned table."""
    lines = [COLUMNS, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    texts = []
    for line in lines:
        cells = [
            cell.rjust(width) if cell.isdigit() else cell.ljust(width) for cell, width in zip(line, widths)
        ]
        text = "  ".join(cells).rstrip()
        texts.append(red(text) if line[-1].startswith("FAIL") else text)
    return "\n".join(texts)


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _coloured(code: str, text: str) -> str:
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\033[{code}m{text}\033[0m"


def bold(text: str) -> str:
    return _coloured("1", text)


def dim(text: str) -> str:
    return _coloured("2", text)


def red(text: str) -> str:
    return _coloured("31", text)


def green(text: str) -> str:
    return _coloured("32", text)
