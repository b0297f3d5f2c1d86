"""Runs the commands of the original's documentation, which stand in original.txt, word for word."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import table
import tutorial
from failure import CommandError

if TYPE_CHECKING:
    from run import Reader

LIST = Path(__file__).with_name("original.txt")
KINDS = ("readme", "served", "stored", "refused", "prepare")


def commands(text: str) -> list[tuple[str, str]]:
    """The commands of a list, each with the word that says what must come of it."""
    found = []
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        kind, _, command = line.partition(" ")
        if kind not in KINDS:
            raise ValueError(f"{LIST.name}: {kind!r} is none of {', '.join(KINDS)}: {line}")
        found.append((kind, command.strip()))
    return found


def check(reader: Reader) -> list[str]:
    """Run the list after the tutorials; return what failed, each as a text."""
    reader.where = "original"
    print(f"\n{table.bold('the commands of the original documentation')}", flush=True)
    failures = []
    in_readmes = {
        command.text
        for readme in (reader.service.work / "examples").glob("*/readme.md")
        for command in tutorial.read(readme)
    }
    elsewhere = reader.elsewhere()
    counts = dict.fromkeys(KINDS, 0)
    for kind, command in commands(LIST.read_text(encoding="utf-8")):
        try:
            if kind == "readme":
                if command not in in_readmes:
                    raise CommandError(f"stands in none of our tutorials: {command}")
            elif kind == "served":
                reader.run(tutorial.Command(command, 0))
            elif kind == "refused":
                _refused(elsewhere, command)
            else:
                elsewhere.shell(command)
            counts[kind] += 1
        except CommandError as error:
            failures.append(f"{LIST.name}: {error}")
            print(table.red(f"  {error}"), flush=True)
    told = ", ".join(f"{counts[kind]} {kind}" for kind in KINDS[:-1])
    print(f"  {sum(counts.values()) - counts['prepare']} commands word for word: {told}", flush=True)
    return failures


def _refused(reader: Reader, command: str) -> None:
    line, _, reason = command.rpartition(" => ")
    try:
        reader.shell(line)
    except CommandError as error:
        if reason not in str(error).partition("\n")[2]:
            raise CommandError(f"the refusal does not say {reason!r}: {error}") from error
        return
    raise CommandError(f"was not refused: {line}")
