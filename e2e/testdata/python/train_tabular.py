"""Trains models on a table with names, categories and missing values, and says what Python answers.

Prints JSON: records, and for each file its engine, the setting method, and the answers to the records
together and one by one.
"""

import json
import sys
from pathlib import Path

import joblib
import lightgbm
import numpy
import pandas
import xgboost
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

folder = Path(sys.argv[1])
random = numpy.random.default_rng(11)
rows = 600
table = pandas.DataFrame(
    {
        "city": random.choice(["Bern", "La Chaux-de-Fonds", "Zug"], rows),
        "area": random.normal(90, 30, rows),
        "rooms": random.integers(1, 7, rows),
        "heating": random.choice(["gas", "oil", "none"], rows),
        "new": random.random(rows) < 0.3,
    }
)
score = table["area"] / 30 + table["rooms"] + 2 * (table["city"] == "Zug") + table["new"]
label = (score + random.normal(0, 0.3, rows) > score.median()).astype(int)
grade = numpy.where(label == 1, "dear", "cheap")
table["city"] = table["city"].astype(object)
table.loc[random.random(rows) < 0.1, "city"] = numpy.nan
table.loc[random.random(rows) < 0.1, "area"] = None
table.to_csv(folder / "train.csv", index=False)
typed = table.assign(city=table["city"].astype("category"), heating=table["heating"].astype("category"))

pipeline = Pipeline(
    [
        (
            "columns",
            ColumnTransformer(
                [
                    (
                        "words",
                        Pipeline(
                            [("fill", SimpleImputer(strategy="most_frequent")), ("code", OneHotEncoder())]
                        ),
                        ["city"],
                    ),
                    ("order", OrdinalEncoder(), ["heating"]),
                    (
                        "numbers",
                        Pipeline([("fill", SimpleImputer()), ("scale", StandardScaler())]),
                        ["area", "rooms"],
                    ),
                ],
                remainder="passthrough",
            ),
        ),
        ("model", LogisticRegression(max_iter=1000)),
    ]
).fit(table, grade)
hist = HistGradientBoostingClassifier(max_iter=20, categorical_features="from_dtype").fit(typed, label)
trees = xgboost.XGBClassifier(n_estimators=12, enable_categorical=True).fit(typed, label)
light = lightgbm.LGBMClassifier(n_estimators=12, verbosity=-1).fit(typed, label)

joblib.dump(pipeline, folder / "pipeline.pkl")
joblib.dump(hist, folder / "hist.pkl")
joblib.dump(trees, folder / "trees.pkl")
trees.save_model(folder / "trees.json")
trees.save_model(folder / "trees.ubj")
light.booster_.save_model(folder / "light.txt")
joblib.dump(light, folder / "light.pkl")

records = json.loads(table.head(25).to_json(orient="records", force_ascii=False))


def as_trained(part, like):
    """Return records as a table with the types of training."""
    frame = pandas.DataFrame(part, columns=like.columns)
    for name in ("area", "rooms"):
        frame[name] = frame[name].astype(float)
    for name in ("city", "heating"):
        if isinstance(like[name].dtype, pandas.CategoricalDtype):
            frame[name] = pandas.Categorical(frame[name], categories=like[name].cat.categories)
        else:
            frame[name] = frame[name].astype(object).fillna(numpy.nan)
    return frame


def answers(predict, like):
    """Return the answers to all records at once, and to each alone."""
    together = predict(as_trained(records, like)).tolist()
    return together, [predict(as_trained([record], like)).tolist() for record in records]


def scores(frame):
    """Return what the engine xgboost answers without a method: the scores of the Booster, as the original."""
    return trees.get_booster().predict(xgboost.DMatrix(frame, enable_categorical=True))


cases = [
    ("pipeline.pkl", "sklearn", "", pipeline.predict, table),
    ("pipeline.pkl", "sklearn", "predict_proba", pipeline.predict_proba, table),
    ("pipeline.pkl", "sklearn", "decision_function", pipeline.decision_function, table),
    ("hist.pkl", "sklearn", "predict_proba", hist.predict_proba, typed),
    ("trees.pkl", "sklearn", "", trees.predict, typed),
    ("trees.json", "xgboost", "predict", trees.predict, typed),
    ("trees.ubj", "xgboost", "predict_proba", trees.predict_proba, typed),
    ("trees.ubj", "xgboost", "", scores, typed),
    ("light.txt", "lightgbm", "", light.booster_.predict, typed),
    ("light.pkl", "sklearn", "predict_proba", light.predict_proba, typed),
]
told = []
for file, engine, method, predict, like in cases:
    together, alone = answers(predict, like)
    told.append({"file": file, "engine": engine, "method": method, "together": together, "alone": alone})
print(json.dumps({"records": records, "cases": told}))
