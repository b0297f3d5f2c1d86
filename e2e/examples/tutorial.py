"""Reads the commands out of a tutorial.

A command stands in a fenced block, one a line (a line may go on behind a backslash), or in inline
code, which may go on in the next line. Everything else in code marks, such as an answer or a file
name, is not a command.
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

PROGRAMS = ("clearml-serving", "python3", "pip3", "curl", "eval", "cd")
_CODE = re.compile(r"^```[^\n]*\n(?P<block>.*?)^```|`(?P<inline>[^`]+)`", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Command:
    """One command of a tutorial."""

    text: str
    line: int
    answer: Optional[str] = None  # the expected answer of a curl command in the tutorial

    @property
    def words(self) -> list:
        """The command as split by the shell."""
        return shlex.split(self.text)

    @property
    def is_set_up(self) -> bool:
        """Whether it starts a service or sets up the reader's shell."""
        return self.words[0] == "eval" or self.verb() in ("up", "server", "inference", "triton")

    def verb(self) -> str:
        """What a clearml-serving command does, for example "model add"; "" for other programs."""
        words = self.words
        if words[0] != "clearml-serving":
            return ""
        rest = words[3:] if words[1:2] == ["--id"] else words[1:]
        return " ".join(rest[:2]) if rest[0] in ("model", "metrics") else rest[0]

    def flag(self, name: str) -> Optional[str]:
        """The value of a flag, None without the flag."""
        words = self.words
        return words[words.index(name) + 1] if name in words else None


def read(path: Path) -> list:
    """The commands of a tutorial, in order."""
    return commands(path.read_text(encoding="utf-8"))


def commands(text: str) -> list:
    """The commands of a tutorial's text."""
    found = []
    for code in _CODE.finditer(text):
        line = text.count("\n", 0, code.start()) + 1
        block = code["block"]
        if block is None:
            lines = [" ".join(code["inline"].split())]
        else:
            lines = block.replace("\\\n", " ").splitlines()
        for one in lines:
            words = one.split(maxsplit=1)
            if len(words) == 2 and words[0] in PROGRAMS:
                answer = _stated_answer(text[code.end() :]) if words[0] == "curl" else None
                found.append(Command(one.strip(), line, answer))
    return found


def _stated_answer(after: str) -> Optional[str]:
    """The exact answer that a tutorial gives after a request: "It answers `{...}`"."""
    stated = re.match(r"\s*It answers `([^`]+)`", after)
    return stated[1] if stated else None
