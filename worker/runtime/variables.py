"""The variables of a sampled request for the statistics.

They are the values that user code has collected, and the fields of request and answer that the endpoint's
metric definition names. It never fails a request: a value that cannot be encoded becomes null, which the
statistics count, and is logged once per name.
"""

from __future__ import annotations

import json
from typing import Any, Callable

from answer import AnswerError
from codec import encode_json

MOST = 10_000  # elements of a value that the statistics count


def shortened(values: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Return the values with these names; of an array, one element more than what counts, so that it is said."""
    found = {}
    for name in names:
        if name in values:
            value = values[name]
            many = getattr(value, "size", 0)
            found[name] = value.reshape(-1)[: MOST + 1] if type(many) is int and many > MOST else value
    return found


class Variables:
    """Gathers one endpoint's variables. `dropped` counts values that could not be encoded."""

    def __init__(self, names: list[str], log: Callable[[str, str], None]) -> None:
        self.names = tuple(names)
        self.dropped = 0
        self._log = log
        self._said: set[str] = set()

    def rename(self, names: bytes | bytearray | memoryview) -> None:
        """Set the names, a JSON list, that apply from the next request on."""
        self.names = tuple(json.loads(bytes(names)))

    def gather(self, request: Any, answer: Any, collected: dict[Any, Any]) -> bytes:
        """Return the JSON object of this request's variables, or nothing if there are none."""
        if not collected and not self.names:
            return b""
        record = collected
        for source in (request, answer):  # in this order: the answer takes precedence
            if isinstance(source, dict):
                for name in self.names:
                    if name in source:
                        record[name] = source[name]
        if not record:
            return b""
        try:
            return encode_json(record, exact=True)
        except Exception:
            return self._encode_singly(record)

    def _encode_singly(self, record: dict[Any, Any]) -> bytes:
        parts = []
        for name, value in record.items():
            try:
                parts.append(encode_json({name: value}, exact=True)[1:-1])
            except Exception as error:
                parts.append(self._without_value(name, error))
        return b"{" + b",".join(parts) + b"}" if parts else b""

    def _without_value(self, key: Any, error: Exception) -> bytes:
        try:
            name = str(key)
        except Exception:
            name = "?"
        self.dropped += 1
        if name not in self._said and len(self._said) < 100:
            self._said.add(name)
            why = str(error) if isinstance(error, AnswerError) else type(error).__name__
            self._log("warning", f"statistics: variable '{name}' is left out (said once): {why}")
        return json.dumps({name: None})[1:-1].encode()
