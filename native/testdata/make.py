"""Makes the small models of this folder and their proofs: python make.py (with the three libraries)."""

import os
import sys
import warnings

os.environ["OMP_NUM_THREADS"] = "1"
FOLDER = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(FOLDER, "..", "extract", "python"))
warnings.simplefilter("ignore")

import lightgbm  # noqa: E402
import numpy as np  # noqa: E402
import prepared  # noqa: E402
import xgboost  # noqa: E402
from nativemodel import extract  # noqa: E402
from sklearn import calibration, ensemble, linear_model, svm, tree  # noqa: E402


def texts(x):
    """Return a table with texts and missing values."""
    import pandas

    frame = pandas.DataFrame(x[:, :3], columns=["x0", "x1", "x2"])
    frame["c0"] = np.array(["red", "green", "a b", None], dtype=object)[x[:, 3].astype(int) % 4]
    frame["c1"] = np.array(["s", "m", "l"], dtype=object)[x[:, 3].astype(int) % 3]
    return frame


def main():
    random = np.random.default_rng(0)
    x = random.normal(size=(300, 5))
    x[:, 3] = random.integers(0, 6, size=300)
    y = np.digitize(x[:, 0] + x[:, 1] * (x[:, 3] > 2), [-0.5, 0.5])
    few = {"n_estimators": 4, "random_state": 0, "max_depth": 5}
    kinds = ["q", "q", "q", "c", "q"]
    models = {
        "forest": ensemble.RandomForestClassifier(**few).fit(x, y),
        "boosting": ensemble.GradientBoostingClassifier(**few).fit(x, y > 0),
        "histogram": ensemble.HistGradientBoostingRegressor(max_iter=4, categorical_features=[3]).fit(
            x, x[:, 0] + y
        ),
        "columns": prepared.columns(linear_model.LogisticRegression()).fit(texts(x), y),
        "calibrated": calibration.CalibratedClassifierCV(
            svm.LinearSVC(random_state=0), method="isotonic", cv=2
        ).fit(x, y),
        "voting": ensemble.VotingClassifier(
            [("a", tree.DecisionTreeClassifier(max_depth=2)), ("b", linear_model.LogisticRegression())],
            voting="soft",
        ).fit(x, y > 0),
        "xgboost": xgboost.XGBClassifier(enable_categorical=True, feature_types=kinds, **few).fit(x, y),
        "lightgbm": lightgbm.LGBMClassifier(verbose=-1, **few).fit(x, y, categorical_feature=[3]),
    }
    for name, model in models.items():
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        path = os.path.join(FOLDER, name)
        extract(model, path + ".native", path + ".proof", rows=40)
        os.chmod(path + ".native", 0o644)
        os.chmod(path + ".proof", 0o644)


if __name__ == "__main__":
    main()
