"""Draws what a command printed as an SVG picture of a terminal, for the README.

usage: COMMAND 2>&1 | python3 scripts/terminal_picture.py TITLE > picture.svg
"""

import html
import re
import sys

WIDTH = 108  # columns; longer lines are cut with an ellipsis
LINE, CHARACTER = 18, 7.8  # pixels
ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
COLOURS = (  # the first pattern that matches a line colours it
    (re.compile(r"^\[\d/\d\]|^It works"), "#7ee787"),
    (re.compile(r"^\s*\$ "), "#79c0ff"),
    (re.compile(r"^\s+(Stop|Try next)|^(Stop|Try next)"), "#d2a8ff"),
)


def colour(line: str) -> str:
    return next((c for pattern, c in COLOURS if pattern.search(line)), "#e6edf3")


def picture(title: str, lines: list[str]) -> str:
    width, height = int(WIDTH * CHARACTER) + 40, len(lines) * LINE + 64
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" role="img" '
        f'aria-label="{html.escape(title)}" font-family="ui-monospace, Menlo, monospace" font-size="13">',
        f'<rect width="{width}" height="{height}" rx="8" fill="#0d1117"/>',
        '<circle cx="20" cy="18" r="6" fill="#ff5f57"/><circle cx="40" cy="18" r="6" fill="#febc2e"/>'
        '<circle cx="60" cy="18" r="6" fill="#28c840"/>',
        f'<text x="{width / 2}" y="22" fill="#8b949e" text-anchor="middle">{html.escape(title)}</text>',
    ]
    for number, line in enumerate(lines):
        shown = line if len(line) <= WIDTH else line[: WIDTH - 1] + "…"
        if shown.strip():
            parts.append(
                f'<text x="20" y="{54 + number * LINE}" fill="{colour(line)}" xml:space="preserve">'
                f"{html.escape(shown)}</text>"
            )
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    lines = [ESCAPES.sub("", line.rstrip("\n")).replace("\t", "    ") for line in sys.stdin]
    while lines and not lines[0].strip():
        del lines[0]
    sys.stdout.write(picture(sys.argv[1], lines))


if __name__ == "__main__":
    main()
