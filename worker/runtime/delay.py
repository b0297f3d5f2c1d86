"""What the machine's other work takes from a thread."""

from __future__ import annotations

from typing import Optional


def run_delay(thread: Optional[int] = None) -> float:
    """Tell for how many seconds a thread, by its native id, or this one could have run and had no processor."""
    place = "thread-self" if thread is None else f"self/task/{thread}"
    try:
        with open(f"/proc/{place}/schedstat", "rb") as told:
            return int(told.read().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0  # no Linux, or a kernel without
