"""The dimension of a metric."""

from __future__ import annotations


class Dimension:
    """A name and a value; statistics have no dimensions, so they are only kept."""

    def __init__(self, name: str, value: str) -> None:
        self.name, self.value = name, value

    def __str__(self) -> str:
        return f"{self.name}:{self.value}"
