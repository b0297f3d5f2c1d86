"""Saves models in the forms that users upload: python files.py FOLDER.

Prints engine, method, file and what is extracted of each.
"""

import os
import sys
import warnings

os.environ["OMP_NUM_THREADS"] = "1"
warnings.simplefilter("ignore")

import joblib  # noqa: E402
import lightgbm  # noqa: E402
import numpy as np  # noqa: E402
import xgboost  # noqa: E402
from sklearn import ensemble, neighbors  # noqa: E402


def main():
    folder = sys.argv[1]
    random = np.random.default_rng(0)
    x = random.normal(size=(200, 4))
    y = np.digitize(x[:, 0] + x[:, 1], [-0.5, 0.5])
    forest = ensemble.RandomForestClassifier(3, n_jobs=-1).fit(x, y)
    classifier = xgboost.XGBClassifier(n_estimators=3).fit(x, y)
    light = lightgbm.LGBMClassifier(n_estimators=3, verbose=-1).fit(x, y)
    at = {
        name: os.path.join(folder, name)
        for name in ("f.pkl", "n.pkl", "x.json", "x.ubj", "x.pkl", "l.txt", "l.pkl")
    }
    joblib.dump(forest, at["f.pkl"], compress=3)
    joblib.dump(neighbors.KNeighborsClassifier().fit(x, y), at["n.pkl"])
    classifier.save_model(at["x.json"])
    classifier.save_model(at["x.ubj"])
    joblib.dump(classifier, at["x.pkl"])
    light.booster_.save_model(at["l.txt"])
    joblib.dump(light, at["l.pkl"])
    for engine, method, name, says in (
        ("sklearn", "", "f.pkl", "RandomForestClassifier: predict, predict_proba"),
        ("sklearn", "", "n.pkl", "refused"),
        ("xgboost", "", "x.json", "Booster: predict"),
        ("xgboost", "predict_proba", "x.json", "XGBClassifier: predict, predict_proba"),
        ("xgboost", "predict", "x.ubj", "XGBClassifier: predict, predict_proba"),
        ("sklearn", "", "x.pkl", "XGBClassifier: predict, predict_proba"),
        ("lightgbm", "", "l.txt", "Booster: predict"),
        ("sklearn", "", "l.pkl", "LGBMClassifier: predict, predict_proba"),
    ):
        print(engine, method, at[name], says, sep="\t")


if __name__ == "__main__":
    main()
