"""Print one row of a pickled model's input as JSON, with values that the model knows.

It is run by "clearml-serving run" with the path of the model. The worker has loaded the same file before.
"""

from __future__ import annotations

import sys

if sys.path[:1] == [""]:  # -c adds the current folder: its files must not replace modules
    del sys.path[0]

import json  # noqa: E402
from typing import Any  # noqa: E402


def learn(step: Any, columns: list[str], row: dict[str, Any]) -> None:
    """Put what a step knows of its columns into the row: a category, or a mean."""
    for _, inner in getattr(step, "steps", ()):
        learn(inner, columns, row)
    for _, inner, chosen in getattr(step, "transformers_", ()):
        if not isinstance(chosen, str) and all(isinstance(name, str) for name in chosen):
            learn(inner, list(chosen), row)
    for known in ("categories_", "mean_", "statistics_"):
        values = getattr(step, known, None)
        if values is None or len(values) != len(columns):
            continue
        for name, value in zip(columns, values):
            value = value[0] if known == "categories_" else value
            row[name] = value.item() if hasattr(value, "item") else value


def main() -> None:
    """Load the model and print its row."""
    import joblib

    model = joblib.load(sys.argv[1])
    model = getattr(model, "best_estimator_", model)
    columns = [str(name) for name in model.feature_names_in_]
    row: dict[str, Any] = dict.fromkeys(columns, 0)
    learn(model, columns, row)
    print(json.dumps({name: round(v, 3) if isinstance(v, float) else v for name, v in row.items()}))


if __name__ == "__main__":
    main()
