"""Runs the program: python -m clearml_serving_go run model.pkl."""

from __future__ import annotations

import os
import sys

from ._binary import find_binary


def main() -> None:
    """Replace this process by the program, so that signals and the exit code are its own."""
    try:
        program = find_binary()
    except FileNotFoundError as e:
        sys.exit(f"Error: {e}")
    os.execv(program, [program, *sys.argv[1:]])


if __name__ == "__main__":
    main()
