"""Draws a terminal as an SVG picture, for the documentation.

usage: COMMAND 2>&1 | python3 scripts/terminal_picture.py TITLE > picture.svg
       python3 scripts/terminal_picture.py TITLE --record SCRIPT > picture.svg

The first form draws what a command printed. The second one runs a script in a terminal and an empty home of
its own and draws what appeared there, with its timing, as an animation in CSS. With reduced motion, and where
CSS is not supported, the picture shows the last state. Each line of SCRIPT is a command, which is shown as if
it was typed; one behind "@hide " is run unseen; one before " ^C" is ended by Ctrl-C once it says so.
"""

import argparse
import html
import os
import pty
import re
import select
import signal
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from fcntl import ioctl
from pathlib import Path
from termios import TIOCSWINSZ
from typing import NamedTuple

WIDTH = 108  # columns; longer lines are cut with an ellipsis, recorded ones are wrapped
LINE, CHARACTER = 18, 7.8  # pixels
TYPING = 0.03  # seconds a character, in the picture
LONGEST = 2.0  # seconds without a change in the picture
LAST = 6.0  # seconds for which the last state stays
PATIENCE = 300  # seconds for which a command may say nothing
PROMPT = "\x1b]133;A\x07"  # nothing on the screen
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07")
VOLATILE = (  # what differs in each run and is long
    (re.compile(r"\b([0-9a-f]{6})[0-9a-f]{26}\b"), r"\1…"),
    (re.compile(r"(/login/link/)\w+"), r"\1…"),
    (re.compile(r"(127\.0\.0\.1):\d{5}(?=/login)"), r"\1:8008"),  # free ports instead of the default ones
    (re.compile(r"(127\.0\.0\.1):\d{5}\b"), r"\1:8080"),
)
COLOURS = (  # the first pattern that matches a line colours it
    (re.compile(r"^\[\d/\d\]|^It works|^The running|^All \d|\bgood\b"), "#7ee787"),
    (re.compile(r"^Error|\brefused\b"), "#ff7b72"),
    (re.compile(r"^\s*\$ "), "#79c0ff"),
    (re.compile(r"^\s+(Stop|Try next)|^(Stop|Try next)"), "#d2a8ff"),
)


class Frame(NamedTuple):
    """A line of the terminal, when it appeared, and its colour."""

    line: str
    at: float
    colour: str


def colour_of(line: str) -> str:
    return next((c for pattern, c in COLOURS if pattern.search(line)), "#e6edf3")


def picture(title: str, frames: list[Frame]) -> str:
    width, height = int(WIDTH * CHARACTER) + 40, len(frames) * LINE + 64
    times = moments(frames)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{html.escape(title)}" font-family="ui-monospace, Menlo, monospace" font-size="13">',
        style(frames),
        f'<rect width="{width}" height="{height}" rx="8" fill="#0d1117"/>',
        '<circle cx="20" cy="18" r="6" fill="#ff5f57"/><circle cx="40" cy="18" r="6" fill="#febc2e"/>'
        '<circle cx="60" cy="18" r="6" fill="#28c840"/>',
        f'<text x="{width / 2}" y="22" fill="#8b949e" text-anchor="middle">{html.escape(title)}</text>',
    ]
    for number, (line, at, colour) in enumerate(frames):
        if line.strip():
            moves = f' class="l l{times.index(at)}"' if at > 0 else ""
            parts.append(
                f'<text{moves} x="20" y="{54 + number * LINE}" fill="{colour}" xml:space="preserve">'
                f"{html.escape(line)}</text>"
            )
    return "\n".join([part for part in parts if part] + ["</svg>", ""])


def style(frames: list[Frame]) -> str:
    """The animation: each line appears at its time, again and again. "" for a still."""
    times = moments(frames)
    if not times:
        return ""
    whole = times[-1] + LAST
    rules = [
        f"@keyframes k{n}{{0%{{opacity:0}}{100 * at / whole:.2f}%,100%{{opacity:1}}}}"
        f".l{n}{{animation-name:k{n}}}"
        for n, at in enumerate(times)
    ]
    return (
        "<style>@media screen and (prefers-reduced-motion:no-preference){"
        f".l{{animation:{whole:.1f}s step-end infinite}}" + "".join(rules) + "}</style>"
    )


def moments(frames: list[Frame]) -> list[float]:
    """The times at which something appears."""
    return sorted({frame.at for frame in frames if frame.at > 0})


class Terminal:
    """A shell in a terminal, and what it printed when."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.now = 0.0  # in the picture
        self.home = tempfile.TemporaryDirectory(prefix="clearml-serving-recording-")
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            for name in [name for name in os.environ if name.startswith(("CLEARML_", "TRAINS_", "XDG_"))]:
                del os.environ[name]
            # A prompt that is not seen: the picture has its own.
            os.environ.update(PS1=r"\[\e]133;A\a\]", PS2="", NO_COLOR="1", TERM="xterm", HISTFILE="")
            os.environ["HOME"] = self.home.name
            os.chdir(self.home.name)
            os.execvp("bash", ["bash", "--norc", "--noprofile", "--noediting"])
        ioctl(self.fd, TIOCSWINSZ, struct.pack("HHHH", 50, 400, 0, 0))
        self.rest = ""
        self.read(shown=False)
        self.run("stty -echo -echoctl", shown=False)

    def close(self) -> None:
        os.kill(self.pid, signal.SIGHUP)
        os.close(self.fd)
        os.waitpid(self.pid, 0)
        self.home.cleanup()

    def type(self, command: str) -> None:
        self.show(f"$ {command}")
        self.now += min(TYPING * len(command), LONGEST)

    def show(self, line: str) -> None:
        """Adds a line to the picture, in the parts into which the terminal breaks it."""
        self.frames += [Frame(part, max(self.now, 0.01), colour_of(line)) for part in wrapped(line)]

    def run(self, command: str, shown: bool = True, until: str = "") -> None:
        if shown:
            self.type(command)
        os.write(self.fd, command.encode() + b"\n")
        self.read(shown, until)

    def read(self, shown: bool, until: str = "") -> None:
        """Reads until the prompt, or until a line with these words."""
        last = time.monotonic()
        while True:
            ready, _, _ = select.select([self.fd], [], [], PATIENCE)
            if not ready:
                raise SystemExit(f"nothing was printed for {PATIENCE} s:\n{self.rest}")
            self.rest += os.read(self.fd, 65536).decode(errors="replace")
            *lines, self.rest = self.rest.split("\n")
            before, prompt, after = self.rest.partition(PROMPT)
            if prompt:
                self.rest = after
                lines += [before] if before.strip() else []
            if shown and lines:
                now = time.monotonic()
                self.now += min(now - last, LONGEST)
                last = now
                for line in lines:
                    self.show(clean(line))
            if prompt or (until and any(until in line for line in lines)):
                return


def clean(line: str) -> str:
    line = ESCAPES.sub("", line.rstrip("\r")).replace("\t", "    ")
    line = line[line.rfind("\r") + 1 :]  # what remains of a line that was written again and again
    for pattern, instead in VOLATILE:
        line = pattern.sub(instead, line)
    return line


def wrapped(line: str) -> Iterator[str]:
    """A line as a terminal of our width shows it, broken between words if that is possible."""
    while len(line) > WIDTH:
        at = line.rfind(" ", WIDTH // 2, WIDTH)
        at = at + 1 if at > 0 else WIDTH
        yield line[:at]
        line = "    " + line[at:]
    yield line


def record(script: list[str]) -> list[Frame]:
    terminal = Terminal()
    try:
        for line in script:
            if line.startswith("@hide "):
                terminal.run(line.removeprefix("@hide "), shown=False)
            elif line.endswith(" ^C"):
                terminal.run(line.removesuffix(" ^C"), until="Ctrl-C")
                terminal.now += LONGEST
                terminal.show("^C")
                os.write(terminal.fd, b"\x03")
                terminal.read(shown=True)
            elif line.strip():
                terminal.run(line)
                terminal.now += 1
    finally:
        terminal.close()
    return terminal.frames


def main() -> None:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("title")
    parser.add_argument("--record", type=Path, metavar="SCRIPT")
    chosen = parser.parse_args()
    if chosen.record:
        frames = record(chosen.record.read_text().splitlines())
    else:
        lines = [ESCAPES.sub("", line.rstrip("\n")).replace("\t", "    ") for line in sys.stdin]
        frames = [Frame(s if len(s) <= WIDTH else s[: WIDTH - 1] + "…", 0, colour_of(s)) for s in lines]
    while frames and not frames[0].line.strip():
        del frames[0]
    sys.stdout.write(picture(chosen.title, frames))


if __name__ == "__main__":
    main()
