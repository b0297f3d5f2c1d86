"""Fits the models of the tests, and writes bodies for each: name.pkl (.json, .txt), and name.bodies by lines.

models.py folder name...
"""

import json
import random
import sys
import warnings

import joblib
import lightgbm
import numpy as np
import pandas as pd
import xgboost
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.feature_selection import SelectKBest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import (
    ElasticNet,
    Lasso,
    LinearRegression,
    LogisticRegression,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
    SGDRegressor,
)
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import LinearSVC, LinearSVR
from sklearn.tree import DecisionTreeClassifier

warnings.simplefilter("ignore")
rng = np.random.default_rng(0)
X = rng.normal([0, 50, -3, 1000, 0.01], [1, 10, 0.1, 300, 0.001], (400, 5))
score = X[:, 0] + (X[:, 1] - 50) / 10 + (X[:, 3] - 1000) / 300
two, three = (score > 0).astype(int), np.digitize(score, [-1, 1])
words = np.array(["low", 'mid"dle', "höch"])[three]
wide = rng.normal(size=(2000, 20))
times = np.random.default_rng(1).integers(1_600_000_000, 1_600_000_400, (400, 5)).astype(float)
missing = X.copy()
missing[rng.random(X.shape) < 0.1] = np.nan

table = pd.DataFrame(
    {
        "age": rng.integers(18, 90, 400),
        "income": rng.normal(50_000, 20_000, 400).round(2),
        "city": rng.choice(["Bern", "Zürich", "Genf", 'a "b"'], 400),
        "plan": rng.choice(["s", "m", "l"], 400),
        "grade": rng.choice([1, 2, 3], 400),
    }
)
gaps = table.copy()
gaps.loc[rng.random(400) < 0.1, "income"] = np.nan
gaps.loc[rng.random(400) < 0.1, "city"] = np.nan
bought = ((table.income > 50_000) ^ (table.city == "Bern")).astype(int)
categories = gaps.drop(columns="income").astype({"city": "category", "plan": "category", "grade": "category"})


def columns(sparse, unknown="ignore"):
    return ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["age", "income"]),
            (
                "texts",
                make_pipeline(
                    SimpleImputer(strategy="most_frequent"),
                    OneHotEncoder(handle_unknown=unknown, sparse_output=sparse),
                ),
                ["city", "plan"],
            ),
            ("rest", OneHotEncoder(drop="first", sparse_output=sparse), ["grade"]),
        ]
    )


def ordinals():
    return ColumnTransformer(
        [("texts", OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), ["city", "plan"])],
        remainder="passthrough",
    )


MODELS = {
    "forest": lambda: RandomForestClassifier(20, random_state=0).fit(X, three),
    "forest_words": lambda: RandomForestClassifier(10, random_state=0).fit(X, words),
    "forest_missing": lambda: RandomForestClassifier(10, random_state=0).fit(missing, two),
    "forest_bool": lambda: RandomForestClassifier(10, random_state=0).fit(X, two > 0),
    "forest_float": lambda: RandomForestClassifier(10, random_state=0).fit(X, three.astype(float)),
    "forest_named": lambda: RandomForestClassifier(10, random_state=0).fit(
        pd.DataFrame(X, columns=list("abcde")), two
    ),
    "forest_regressor": lambda: RandomForestRegressor(20, random_state=0).fit(X, score),
    "extra_regressor": lambda: ExtraTreesRegressor(20, random_state=0).fit(X, score),
    "tree": lambda: DecisionTreeClassifier(random_state=0).fit(X, three),
    "logistic": lambda: LogisticRegression(max_iter=2000).fit(X, two),
    "logistic3": lambda: make_pipeline(StandardScaler(), LogisticRegression()).fit(X, three),
    "linear": lambda: LinearRegression().fit(X, score),
    "linear2": lambda: LinearRegression().fit(X, np.c_[score, two]),
    "ridge": lambda: make_pipeline(MinMaxScaler(clip=True), Ridge()).fit(X, score),
    "lasso": lambda: make_pipeline(RobustScaler(), Lasso(0.01)).fit(X, score),
    "elastic": lambda: make_pipeline(MaxAbsScaler(), ElasticNet(0.01)).fit(X, score),
    "sgd": lambda: make_pipeline(StandardScaler(), SGDClassifier(loss="log_loss", random_state=0)).fit(
        X, three
    ),
    "sgd_regressor": lambda: make_pipeline(StandardScaler(), SGDRegressor(random_state=0)).fit(X, score),
    "svc": lambda: make_pipeline(StandardScaler(), LinearSVC()).fit(X, words),
    "svr": lambda: make_pipeline(StandardScaler(), LinearSVR()).fit(X, score),
    "ridge_classifier": lambda: make_pipeline(StandardScaler(), RidgeClassifier()).fit(X, three),
    "scaler": lambda: StandardScaler().fit(X),
    "scalers": lambda: make_pipeline(SimpleImputer(), RobustScaler(), MinMaxScaler()).fit(missing),
    "imputed": lambda: make_pipeline(
        SimpleImputer(strategy="median"), StandardScaler(), LogisticRegression()
    ).fit(missing, two),
    "scaled_forest": lambda: make_pipeline(StandardScaler(), RandomForestClassifier(10, random_state=0)).fit(
        X, three
    ),
    "calibrated": lambda: CalibratedClassifierCV(LinearSVC(), cv=3).fit(X, two),
    "calibrated3": lambda: CalibratedClassifierCV(
        RandomForestClassifier(5, random_state=0), method="isotonic", cv=3
    ).fit(X, three),
    "voting": lambda: VotingClassifier(
        [
            ("a", RandomForestClassifier(5, random_state=0)),
            ("b", DecisionTreeClassifier(random_state=0, max_depth=3)),
        ],
        voting="soft",
        weights=[0.3, 0.9],
    ).fit(X, words),
    "voting_regressor": lambda: VotingRegressor(
        [("a", RandomForestRegressor(5, random_state=0)), ("b", LinearRegression())]
    ).fit(X, score),
    "search": lambda: GridSearchCV(RandomForestClassifier(5, random_state=0), {"max_depth": [2, 3]}).fit(
        X, two
    ),
    "columns": lambda: make_pipeline(columns(False), LogisticRegression()).fit(gaps, bought),
    "columns_sparse": lambda: make_pipeline(columns(True), LogisticRegression()).fit(gaps, bought),
    "columns_strict": lambda: make_pipeline(columns(False, "error"), LogisticRegression()).fit(gaps, bought),
    "columns_forest": lambda: make_pipeline(columns(False), RandomForestClassifier(10, random_state=0)).fit(
        gaps, bought
    ),
    "ordinals": lambda: make_pipeline(ordinals(), RandomForestClassifier(10, random_state=0)).fit(
        table, bought
    ),
    "boosting": lambda: GradientBoostingClassifier(n_estimators=10).fit(X, two),
    "histogram": lambda: HistGradientBoostingClassifier(max_iter=10).fit(missing, two),
    "imputed_histogram": lambda: make_pipeline(
        StandardScaler(), HistGradientBoostingClassifier(max_iter=10)
    ).fit(missing, three),
    "isolation": lambda: IsolationForest(n_estimators=20, random_state=0).fit(X),
    "xgb_binary": lambda: xgboost.XGBClassifier(n_estimators=10, n_jobs=1).fit(missing, two),
    "xgb_three": lambda: xgboost.XGBClassifier(n_estimators=10, n_jobs=1).fit(X, three),
    "xgb_named": lambda: xgboost.XGBRegressor(n_estimators=10, n_jobs=1).fit(
        pd.DataFrame(X, columns=list("abcde")), score
    ),
    "xgb_categories": lambda: xgboost.XGBRegressor(n_estimators=10, n_jobs=1, enable_categorical=True).fit(
        categories.assign(city=categories.city.cat.rename_categories({"Zürich": "Zurich"})), table.income
    ),
    "xgbpickle": lambda: xgboost.XGBClassifier(n_estimators=10, n_jobs=1).fit(X, three),
    "lgb_binary": lambda: lightgbm.LGBMClassifier(n_estimators=10, n_jobs=1, verbose=-1).fit(missing, two),
    "lgb_three": lambda: lightgbm.LGBMClassifier(n_estimators=10, n_jobs=1, verbose=-1).fit(X, three),
    "lgb_categories": lambda: lightgbm.LGBMRegressor(n_estimators=10, n_jobs=1, verbose=-1).fit(
        categories, table.income
    ),
    "lgb_times": lambda: lightgbm.LGBMRegressor(n_estimators=10, n_jobs=1, verbose=-1).fit(
        times, times[:, 0] % 97
    ),
    "lgbpickle": lambda: lightgbm.LGBMRegressor(n_estimators=10, n_jobs=1, verbose=-1).fit(
        times, times[:, 0] % 97
    ),
    "lgbvoting": lambda: VotingRegressor(
        [
            ("a", lightgbm.LGBMRegressor(n_estimators=10, n_jobs=1, verbose=-1)),
            ("b", RandomForestRegressor(5, random_state=0)),
        ]
    ).fit(times, times[:, 0] % 97),
    # Of the benchmarks:
    "forest100": lambda: RandomForestClassifier(100, random_state=0).fit(
        wide, (wide[:, :5].sum(axis=1) > 0).astype(int)
    ),
    "logistic20": lambda: LogisticRegression().fit(wide, (wide[:, :5].sum(axis=1) > 0).astype(int)),
    # Refused:
    "function": lambda: make_pipeline(FunctionTransformer(np.log1p), LogisticRegression()).fit(
        np.abs(X), two
    ),
    "bayes": lambda: GaussianNB().fit(X, two),
    "select": lambda: make_pipeline(SelectKBest(k=2), LogisticRegression()).fit(X, two),
    "hard": lambda: VotingClassifier([("a", LogisticRegression()), ("b", GaussianNB())]).fit(X, two),
}
RECORDS = (
    "columns",
    "columns_sparse",
    "columns_strict",
    "columns_forest",
    "ordinals",
    "xgb_categories",
    "lgb_categories",
)


def bodies(name, named):
    """Bodies of all forms, good and bad."""
    chosen = random.Random(1)
    if name in RECORDS:
        of = gaps.drop(columns="income") if "categories" in name else gaps
        if name.startswith("xgb"):  # XGBoost damages texts with other letters than those of ASCII
            of = of.replace("Zürich", "Zurich")
        records = json.loads(of.sample(60, random_state=1).to_json(orient="records"))
    else:
        rows = [
            [chosen.gauss(m, 2 * s) for m, s in zip((0, 50, -3, 1000, 0.01), (1, 10, 0.1, 300, 0.001))]
            for _ in range(60)
        ]
        rows += [list(map(round, row)) for row in rows[:5]]
        yield from (json.dumps([row]) for row in rows[:20])
        yield json.dumps(rows)
        yield json.dumps(rows[:2])
        yield json.dumps([[None, *row[1:]] for row in rows[:3]])
        yield json.dumps([[None] * 5])
        yield from (
            "[[1e39,0,0,0,0]]",
            "[[1e300,1,1,1,-1e300]]",
            "[[9007199254740993,1,2,3,4]]",
            "[[-0,-0.0,0,1,2]]",
        )
        yield from ("[[NaN,1,2,3,4]]", "[[1,2,3,4,Infinity]]", "[[1,2,3,4,5e400]]", "[[true,false,1,2,3]]")
        yield from (
            '[["1","2","3","4","5"]]',
            '[["a",1,2,3,4]]',
            "[[1,2,3,4,5],[1,2]]",
            "[[1,2,3,4]]",
            "[1,2,3,4,5]",
        )
        records = [dict(zip("abcde", row)) for row in rows]
    records = records[:20]
    if named:
        yield from (json.dumps(record) for record in records)
        yield json.dumps(records)
        first = list(records[0])
        yield json.dumps(dict(reversed(records[0].items())))
        for key in first:
            yield json.dumps({**records[0], key: None})
        yield json.dumps([{**record, first[1]: None} for record in records[:2]])
        yield json.dumps({key: value for key, value in records[0].items() if key != first[0]})
        yield json.dumps({**records[0], "x": 1})
        yield json.dumps({**records[0], first[2]: "Bärn"})
        yield json.dumps({**records[0], first[2]: [1]})
        yield json.dumps({**records[0], first[0]: "old"})
        yield json.dumps({**records[0], first[0]: True})
        yield json.dumps({**records[0], first[-1]: 9})
        yield json.dumps({**records[0], first[-1]: 2.0})
    else:
        yield json.dumps(records[0])
    yield from (
        "",
        "null",
        "[]",
        "[[]]",
        "{}",
        "1",
        '"x"',
        "[[1,2,3,4,5]",
        "[[1,2,3,4,5]],",
        "{'a':1}",
        "[[01,2,3,4,5]]",
    )
    yield from (" [[1,2,3,4,5]]\n", "[[1,2,3,4,[5]]]", "[[1.5,2,3,4,5],{}]")


def write(folder, name):
    model = MODELS[name]()
    if name.startswith("xgb_"):
        model.save_model(f"{folder}/{name}.json")
    elif name.startswith("lgb_"):
        model.booster_.save_model(f"{folder}/{name}.txt")
    else:
        joblib.dump(model, f"{folder}/{name}.pkl")
    with open(f"{folder}/{name}.bodies", "w", encoding="utf-8") as file:
        named = getattr(model, "feature_names_in_", None) is not None or name in RECORDS
        for body in bodies(name, named):
            file.write(json.dumps(body) + "\n")


if __name__ == "__main__":
    for wanted in sys.argv[2:] or MODELS:
        write(sys.argv[1], wanted)
