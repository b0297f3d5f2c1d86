"""The graph of stages of a model, and its file.

A handler of a model's class adds stages to a Graph and returns the outputs of the model's methods. The file's format
is described in package native (native.go).
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import tempfile
from typing import Any, Callable, NamedTuple, Optional

import numpy as np

MAGIC = b"CMLNATV1"
FORMAT = 1
HEADER = 64
TYPES = {"f64": "<f8", "f32": "<f4", "i64": "<i8", "i32": "<i4", "u32": "<u4", "u16": "<u2", "u8": "u1"}


class RefusedError(Exception):
    """The model stays in Python; the text is the reason, for the user."""


class Output(NamedTuple):
    """The result of a method: a slot, and what the library makes of it."""

    slot: int
    type: str = "float64"  # or float32, int64, label
    flat: bool = False
    labels: Optional[list[Any]] = None
    tolerance: float = 0.0


class Container:
    """A file of arrays with a description."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._end = HEADER

    def array(self, values: Any, kind: str) -> dict[str, Any]:
        """Add an array, and return the reference to it."""
        data = np.ascontiguousarray(values, dtype=TYPES[kind])
        raw = data.tobytes()
        at = self._end
        padding = -len(raw) % 8
        self._parts.append(raw + b"\0" * padding)
        self._end += len(raw) + padding
        return {"type": kind, "at": at, "len": int(data.size)}

    def write(self, path: str, description: dict[str, Any]) -> str:
        """Write the file in one step, and return its hash."""
        text = json.dumps(description, allow_nan=False, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        header = MAGIC + struct.pack("<QQQ", self._end + len(text), self._end, len(text))
        digest = hashlib.sha256(header)
        for part in self._parts:
            digest.update(part)
        digest.update(text)
        handle, name = tempfile.mkstemp(prefix=".native-", dir=os.path.dirname(os.path.abspath(path)))
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(header)
                file.write(digest.digest())
                for part in self._parts:
                    file.write(part)
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
        return digest.hexdigest()


class Graph(Container):
    """The stages of one model."""

    def __init__(self) -> None:
        super().__init__()
        self.columns: list[dict[str, Any]] = []
        self.stages: list[dict[str, Any]] = []
        self.notes: list[str] = []
        # Values of columns of slot 0 at which the model's answer may change, for the rows of the proof.
        self.boundaries: list[tuple[int, float]] = []
        # The codes of columns of slot 0 that are categories, for the rows of the proof.
        self.codes: dict[int, list[float]] = {}
        # A number or code that is none of a column's categories, by column; -1 unless given.
        self.unknown: dict[int, float] = {}
        # What makes the library's input of rows in the form of slot 0, None for the rows themselves.
        self.feed: Optional[Callable[[Any], Any]] = None
        # The library's functions for methods that are not methods of the model.
        self.callers: dict[str, Callable[[Any], Any]] = {}
        # What rows of the proof may hold beside finite numbers.
        self.missing = True
        self.infinite = True
        # Numbers near the largest of float32 stay finite in the library.
        self.large = True
        # Columns that may not be missing, although others may.
        self.required: set[int] = set()

    def stage(self, kind: str, **members: Any) -> int:
        """Add a stage, and return its slot."""
        self.stages.append({"kind": kind, **members})
        return len(self.stages)

    def number_columns(self, count: int, names: Optional[list[str]] = None, kind: str = "float64") -> None:
        """Declare columns of numbers, unless a pipeline has declared its own."""
        if self.columns:
            return
        for i in range(count):
            column: dict[str, Any] = {"type": kind}
            if names is not None:
                column["name"] = str(names[i])
            self.columns.append(column)

    def trees(self, trees: Trees, source: Optional[list[int]] = None, **members: Any) -> int:
        """Add a stage of trees. `source` are the columns of slot 0 that the columns of its slot are."""
        if source is not None:
            self.boundaries.extend((source[feature], threshold) for feature, threshold in trees.boundaries())
        elif members["in"] == 0:
            self.boundaries.extend(trees.boundaries())
        return self.stage("trees", **trees.arrays(self), **members)


NAN_RIGHT, NAN_LEFT, NAN_ZERO, ZERO_RIGHT, ZERO_LEFT = range(5)
CATEGORICAL, SET_GOES_LEFT, UNKNOWN_LEFT = 8, 16, 32


class Trees:
    """Nodes of all trees of a stage: arrays by node, with the children as positions in the arrays."""

    def __init__(self) -> None:
        self.roots: list[int] = []
        self.groups: list[int] = []
        self._count = 0
        self._leaves = 0
        self._nodes: dict[str, list[Any]] = {name: [] for name in ("feature", "threshold", "left", "right", "mode")}
        self._values: list[Any] = []
        self._sets: list[int] = [0]
        self._words: list[Any] = []

    def add(self, feature: Any, threshold: Any, left: Any, right: Any, mode: Any, values: Any, group: int = 0) -> None:
        """Add a tree whose root is node 0; feature -1 is a leaf, whose `left` is the row of its `values`."""
        feature, left, right = (np.asarray(a, dtype=np.int64) for a in (feature, left, right))
        leaf = feature < 0
        self.roots.append(self._count)
        self.groups.append(group)
        nodes = self._nodes
        nodes["feature"].append(feature)
        nodes["threshold"].append(np.where(leaf, 0.0, np.asarray(threshold, dtype=np.float64)))
        nodes["left"].append(np.where(leaf, left + self._leaves, left + self._count))
        nodes["right"].append(np.where(leaf, 0, right + self._count))
        nodes["mode"].append(np.where(leaf, 0, np.asarray(mode, dtype=np.int64)))
        values = np.asarray(values, dtype=np.float64)
        self._values.append(values)
        self._count += len(feature)
        self._leaves += len(values)
        if self._count > 2**31 - 1:
            raise RefusedError("it has more than 2^31 nodes")

    def set(self, words: Any) -> int:
        """Add a set of categories, and return its number: the threshold of a categorical node."""
        self._words.append(np.asarray(words, dtype=np.uint32))
        self._sets.append(self._sets[-1] + len(words))
        return len(self._sets) - 2

    def boundaries(self) -> list[tuple[int, float]]:
        found = []
        for feature, threshold, mode in zip(self._nodes["feature"], self._nodes["threshold"], self._nodes["mode"]):
            compared = (feature >= 0) & (mode & CATEGORICAL == 0)
            found.extend(zip(feature[compared].tolist(), threshold[compared].tolist()))
        return found

    def arrays(self, into: Container) -> dict[str, Any]:
        joined = {name: np.concatenate(parts) if parts else np.zeros(0) for name, parts in self._nodes.items()}
        members = {
            "roots": into.array(self.roots, "u32"),
            "feature": into.array(joined["feature"], "i32"),
            "threshold": into.array(joined["threshold"], "f64"),
            "left": into.array(joined["left"], "i32"),
            "right": into.array(joined["right"], "i32"),
            "mode": into.array(joined["mode"], "u8"),
            "values": into.array(np.concatenate([v.ravel() for v in self._values]) if self._values else [], "f64"),
        }
        if self._words:
            members["sets"] = into.array(self._sets, "u32")
            members["words"] = into.array(np.concatenate(self._words), "u32")
        return members
