"""What the machine's other work takes from this thread."""

from __future__ import annotations


def run_delay() -> float:
    """Return for how many seconds this thread could have run and had no processor."""
    try:
        with open("/proc/thread-self/schedstat", "rb") as told:
            return int(told.read().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0  # no Linux, or a kernel without
