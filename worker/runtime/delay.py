"""The time that this thread has waited for a CPU."""

from __future__ import annotations


def run_delay() -> float:
    """Return for how many seconds this thread was runnable without a CPU."""
    try:
        with open("/proc/thread-self/schedstat", "rb") as told:
            return int(told.read().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0  # not Linux, or a kernel without it
