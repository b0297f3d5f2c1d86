"""Trains small models of every kind and extracts them: python study.py FOLDER ROWS [KIND...].

Prints a line of JSON per model: {"kind", "library", "releases", "file", "proof"}, {..., "refused"}, or
{..., "absent"} if this release of the library does not have the kind.
"""

import json
import os
import sys
import warnings

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "extract", "python"))
warnings.simplefilter("ignore")

import numpy as np  # noqa: E402
from nativemodel import RefusedError, extract  # noqa: E402

KINDS = {}


def kind(library, name):
    def add(function):
        KINDS[name] = (library, function)
        return function

    return add


def data(classes=0, columns=12, rows=1500, missing=0.0, seed=0):
    """Return rows and targets; some columns are whole numbers."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, columns))
    x[:, 3] = np.round(x[:, 3] * 3)
    x[:, 4] = random.integers(0, 5, size=rows)
    score = x[:, 0] + np.sin(2 * x[:, 1]) + 0.3 * x[:, 3] * (x[:, 4] > 2) + 0.3 * random.normal(size=rows)
    if missing:
        x[random.random(x.shape) < missing] = np.nan
    if classes:
        return x, np.digitize(score, np.quantile(score, np.linspace(0, 1, classes + 1)[1:-1]))
    return x, score


# scikit-learn


def sklearn_kinds():
    from sklearn import ensemble, tree

    def fitted(estimator, **of):
        return lambda: estimator.fit(*data(**of))

    few = {"n_estimators": 30, "random_state": 1}
    for name, estimator, of in (
        ("random forest, 3 classes", ensemble.RandomForestClassifier(**few), {"classes": 3}),
        (
            "random forest, 2 classes, missing values",
            ensemble.RandomForestClassifier(**few),
            {"classes": 2, "missing": 0.1},
        ),
        ("random forest, regression", ensemble.RandomForestRegressor(**few), {}),
        ("extra trees, 4 classes", ensemble.ExtraTreesClassifier(**few), {"classes": 4}),
        ("extra trees, regression", ensemble.ExtraTreesRegressor(**few), {}),
        ("decision tree, 3 classes", tree.DecisionTreeClassifier(random_state=1), {"classes": 3}),
        (
            "decision tree, regression, missing values",
            tree.DecisionTreeRegressor(random_state=1),
            {"missing": 0.1},
        ),
        ("extra tree, 2 classes", tree.ExtraTreeClassifier(random_state=1), {"classes": 2}),
    ):
        kind("scikit-learn", name)(fitted(estimator, **of))


def main():
    folder, rows, wanted = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    for add in (sklearn_kinds,):
        try:
            add()
        except ImportError:
            continue
    for number, (name, (library, train)) in enumerate(KINDS.items()):
        if wanted and name not in wanted:
            continue
        line = {"kind": name, "library": library}
        try:
            model = train()
        except (
            TypeError,
            ValueError,
        ) as error:  # a parameter or a kind of data that this release does not have
            print(json.dumps({**line, "absent": str(error).splitlines()[0]}), flush=True)
            continue
        try:
            line["file"] = os.path.join(folder, f"{number}.native")
            line["proof"] = os.path.join(folder, f"{number}.proof")
            description = extract(model, line["file"], line["proof"], seed=1, rows=rows)
            line["releases"] = description["releases"]
        except RefusedError as refused:
            line = {"kind": name, "library": library, "refused": str(refused)}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
