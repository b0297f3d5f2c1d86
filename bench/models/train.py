"""Trains the models of the benchmarks into a folder: the same data and seeds, every time.

python train.py FOLDER [big]
"""

import sys
from pathlib import Path

import joblib
import numpy as np
import xgboost
from sklearn.datasets import make_blobs, make_classification
from sklearn.ensemble import ExtraTreesRegressor, RandomForestClassifier
from sklearn.linear_model import LogisticRegression


def small(folder: Path) -> None:
    """A logistic regression of two numbers, and forests of 100 trees of ten."""
    x, y = make_blobs(n_samples=1000, centers=2, n_features=2, random_state=1)
    joblib.dump(LogisticRegression().fit(x, y), folder / "lr.pkl")
    x, y = make_classification(n_samples=2000, n_features=10, n_informative=6, random_state=1)
    joblib.dump(RandomForestClassifier(n_estimators=100, random_state=1).fit(x, y), folder / "rf.pkl")
    settings = {"objective": "binary:logistic", "max_depth": 6, "seed": 1, "nthread": 1}
    xgboost.train(settings, xgboost.DMatrix(x, y), num_boost_round=100).save_model(folder / "xgb.json")


def big(folder: Path) -> None:
    """A forest of about 500 MB, which several workers should share."""
    random = np.random.default_rng(1)
    x, y = random.random((40_000, 4)), random.random(40_000)
    forest = ExtraTreesRegressor(n_estimators=98, max_features=1, random_state=1, n_jobs=-1).fit(x, y)
    forest.n_jobs = None
    joblib.dump(forest, folder / "big.pkl")
    print(round((folder / "big.pkl").stat().st_size / 1e6), "MB")


if __name__ == "__main__":
    target = Path(sys.argv[1])
    big(target) if "big" in sys.argv[2:] else small(target)
