"""The proof: rows, and the library's own answers to them.

Rows are in the form of slot 0. They are random ones; at the thresholds of the trees and one step beside; with missing,
infinite, tiny and huge values and unknown categories; and rows that the library refuses.
"""

from __future__ import annotations

import math
import warnings
from typing import Any, Callable

import numpy as np

from nativemodel.graph import FORMAT, Container, Graph, Output

SINGLE = 16  # rows that are also asked one at a time: some libraries compute differently then
UNKNOWN = -1


def write(model: Any, graph: Graph, outputs: dict[str, Output], path: str, digest: str, seed: int, rows: int) -> None:
    """Write the proof of an extracted model."""
    file = Container()
    cases = []
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        asked = {name: _caller(model, graph, name) for name in outputs}
        for name, block in _blocks(graph, np.random.default_rng(seed), rows):
            if not len(block):
                continue
            case = {"name": name, "count": len(block), "rows": file.array(block, "f64"), "results": []}
            for method, output in outputs.items():
                ask = asked[method]
                for batch in (0, 1):
                    part = block if batch == 0 else block[:SINGLE]
                    answers = (
                        ask(part) if batch == 0 else np.concatenate([np.atleast_1d(ask(row[None, :])) for row in part])
                    )
                    values = _values(answers, output)
                    case["results"].append(
                        {
                            "method": method,
                            "batch": batch,
                            "values": file.array(values, "f64"),
                            "count": len(part),
                        }
                    )
            cases.append(case)
        refused = _refused(graph, asked, np.random.default_rng(seed + 1))
    if len(refused):
        cases.append(
            {
                "name": "refused",
                "count": len(refused),
                "rows": file.array(refused, "f64"),
                "results": [],
                "refused": True,
            }
        )
    file.write(path, {"format": FORMAT, "model": digest, "cases": cases})


def _caller(model: Any, graph: Graph, method: str) -> Callable[[Any], Any]:
    feed, call = graph.feed, graph.callers.get(method) or getattr(model, method)
    return call if feed is None else lambda rows: call(feed(rows))


def _values(answers: Any, output: Output) -> Any:
    answers = np.asarray(answers)
    if output.type != "label":
        return answers.astype(np.float64)
    positions = {label: i for i, label in enumerate(np.asarray(output.labels).tolist())}
    return np.array([positions[label] for label in answers.ravel().tolist()], dtype=np.float64)


def _blocks(graph: Graph, random: Any, count: int) -> list[tuple[str, Any]]:
    scale = _scales(graph)
    plain = _random(graph, random, scale, count)
    found = [("random", plain)]
    if graph.boundaries:
        rows = _random(graph, random, scale, count)
        for row in rows:
            column, threshold = graph.boundaries[random.integers(len(graph.boundaries))]
            row[column] = _beside(threshold, random.integers(7))
        found.append(("boundaries", rows if graph.infinite else _finite(rows)))
    if graph.missing:
        rows = _random(graph, random, scale, count // 2)
        missing = random.random(rows.shape) < 0.25
        missing[:, sorted(graph.required)] = False
        rows[missing] = math.nan
        found.append(("missing", rows))
    odd = [
        0.0,
        -0.0,
        5e-324,
        1e-320,
        1e-40,
        1e-35,
        -1e-35,
        1.0000000180025095e-35,
        1.1e-35,
        1e30,
        -1e30,
        3.4e38,
    ]
    if graph.infinite:
        odd += [math.inf, -math.inf, 1e300, -1e300]
    odd = [value for value in odd if graph.large or abs(value) < 1]
    rows = _random(graph, random, scale, count // 4)
    for row in rows:
        for column in random.integers(rows.shape[1], size=2):
            if int(column) not in graph.codes:
                row[column] = odd[random.integers(len(odd))]
    found.append(("unusual values", rows))
    if graph.codes:
        rows = _random(graph, random, scale, count // 4)
        for column in graph.codes:
            rows[random.random(len(rows)) < 0.3, column] = graph.unknown.get(column, UNKNOWN)
        found.append(("unknown categories", rows))
    return found


def _finite(rows: Any) -> Any:
    return rows[np.isfinite(rows.astype(np.float32)).all(axis=1)]


def _beside(threshold: float, which: int) -> float:
    single = np.float32(threshold)
    with np.errstate(all="ignore"):
        return (
            float(
                (
                    threshold,
                    np.nextafter(threshold, -math.inf),
                    np.nextafter(threshold, math.inf),
                    single,
                    np.nextafter(single, np.float32(-math.inf)),
                    np.nextafter(single, np.float32(math.inf)),
                    round(threshold),
                )[which]
            )
            if math.isfinite(threshold)
            else threshold
        )


def _scales(graph: Graph) -> list[tuple[float, float]]:
    by_column: dict[int, list[float]] = {}
    for column, threshold in graph.boundaries:
        if math.isfinite(threshold):
            by_column.setdefault(column, []).append(threshold)
    found = []
    for column in range(len(graph.columns)):
        values = by_column.get(column, [-1.0, 1.0])
        low, high = min(values), max(values)
        found.append((low, max(high - low, abs(high) * 1e-3, 1e-6)))
    return found


def _random(graph: Graph, random: Any, scales: list[tuple[float, float]], count: int) -> Any:
    rows = np.empty((count, len(scales)))
    for column, (low, spread) in enumerate(scales):
        if column in graph.codes:
            rows[:, column] = random.choice(np.asarray(graph.codes[column], dtype=np.float64), size=count)
        else:
            rows[:, column] = random.uniform(low - spread / 4, low + spread * 5 / 4, size=count)
    whole = random.random(count) < 0.2
    for column in range(len(scales)):
        if column not in graph.codes:
            rows[whole, column] = np.round(rows[whole, column])
    return rows


def _refused(graph: Graph, asked: dict[str, Callable[[Any], Any]], random: Any) -> Any:
    """Return rows that every method of the library refuses."""
    candidates = []
    numbers = [i for i, column in enumerate(graph.columns) if "categories" not in column]
    for value in (math.nan, math.inf, -math.inf, 1e39, -3.5e38) if numbers else ():
        for row in _random(graph, random, _scales(graph), 4):
            row[random.choice(numbers)] = value
            candidates.append(row)
    found = []
    for row in candidates:
        for ask in asked.values():
            try:
                ask(row[None, :])
            except ValueError:
                continue
            break
        else:
            found.append(row)
    return np.array(found) if found else np.zeros((0, len(graph.columns)))
