"""Trains small models of every kind and extracts them: python study.py FOLDER ROWS [KIND...].

Prints a line of JSON per model: {"kind", "library", "releases", "file", "proof"}, {..., "refused"}, or
{..., "absent"} if this release of the library does not have the kind.
"""

import json
import os
import sys
import warnings

os.environ["OMP_NUM_THREADS"] = "1"  # threads that wait for each other take minutes on a busy machine
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "extract", "python"))
warnings.simplefilter("ignore")

import numpy as np  # noqa: E402
from nativemodel import RefusedError, extract  # noqa: E402
from nativemodel.models import releases  # noqa: E402

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
    few = {"max_iter": 30, "random_state": 1}
    for name, estimator, of in (
        (
            "gradient boosting, 2 classes",
            ensemble.GradientBoostingClassifier(n_estimators=30),
            {"classes": 2},
        ),
        (
            "gradient boosting, 3 classes",
            ensemble.GradientBoostingClassifier(n_estimators=30),
            {"classes": 3},
        ),
        (
            "gradient boosting, 9 classes",
            ensemble.GradientBoostingClassifier(n_estimators=10),
            {"classes": 9},
        ),
        (
            "gradient boosting, exponential loss",
            ensemble.GradientBoostingClassifier(n_estimators=30, loss="exponential"),
            {"classes": 2},
        ),
        (
            "gradient boosting, regression",
            ensemble.GradientBoostingRegressor(n_estimators=30, init="zero"),
            {},
        ),
        (
            "gradient boosting, quantile",
            ensemble.GradientBoostingRegressor(n_estimators=30, loss="quantile", alpha=0.3),
            {},
        ),
        ("isolation forest", ensemble.IsolationForest(n_estimators=30, random_state=1), {}),
        (
            "isolation forest, missing values",
            ensemble.IsolationForest(n_estimators=30, random_state=1),
            {"missing": 0.05},
        ),
        (
            "isolation forest, half of the features",
            ensemble.IsolationForest(n_estimators=30, max_features=0.5, random_state=1),
            {"classes": 2},
        ),
        (
            "histogram boosting, 2 classes, categories, missing values",
            ensemble.HistGradientBoostingClassifier(categorical_features=[3, 4], **few),
            {"classes": 2, "missing": 0.1},
        ),
        (
            "histogram boosting, 3 classes, categories",
            ensemble.HistGradientBoostingClassifier(categorical_features=[3, 4], **few),
            {"classes": 3},
        ),
        ("histogram boosting, 10 classes", ensemble.HistGradientBoostingClassifier(**few), {"classes": 10}),
        ("histogram boosting, regression", ensemble.HistGradientBoostingRegressor(**few), {"missing": 0.1}),
        (
            "histogram boosting, absolute error",
            ensemble.HistGradientBoostingRegressor(loss="absolute_error", **few),
            {},
        ),
    ):
        kind("scikit-learn", name)(fitted(estimator, **of))

    @kind("scikit-learn", "histogram boosting, poisson")
    def _poisson():
        x, y = data()
        return ensemble.HistGradientBoostingRegressor(loss="poisson", **few).fit(x, np.exp(y / 4))

    @kind("scikit-learn", "histogram boosting, table with texts")
    def _texts():
        return ensemble.HistGradientBoostingClassifier(categorical_features=["c0", "c1"], **few).fit(*table())

    @kind("scikit-learn", "random forest, several outputs")
    def _several():
        x, y = data()
        return ensemble.RandomForestRegressor(n_estimators=3).fit(x, np.stack([y, -y], axis=1))


def table(missing=0.1, classes=2):
    """Return a table with two columns of categories, and classes."""
    import pandas

    x, y = data(classes, columns=8)
    random = np.random.default_rng(3)
    frame = pandas.DataFrame({f"x{i}": x[:, i] for i in range(x.shape[1])})
    words = np.array(["red", "green", "blue", "a b", "\u00e9t\u00e9"], dtype=object)
    c0 = words[(x[:, 4].astype(int) + (random.random(len(x)) < 0.2)) % 5]
    c1 = words[random.integers(0, 3, size=len(x))]
    c0[random.random(len(x)) < missing] = None
    frame["c0"], frame["c1"] = pandas.Categorical(c0), pandas.Categorical(c1)
    return frame, y


def prepared_kinds():
    import prepared

    prepared.kinds(kind, data, table)


# XGBoost


def xgboost_kinds():
    import xgboost

    few = {"n_estimators": 30, "max_depth": 5}

    def fitted(estimator, **of):
        return lambda: estimator.fit(*data(**of))

    for name, estimator, of in (
        (
            "XGBClassifier, 2 classes, missing values",
            xgboost.XGBClassifier(**few),
            {"classes": 2, "missing": 0.1},
        ),
        ("XGBClassifier, 4 classes", xgboost.XGBClassifier(**few), {"classes": 4}),
        ("XGBRegressor", xgboost.XGBRegressor(**few), {"missing": 0.1}),
        ("XGBRegressor, absolute error", xgboost.XGBRegressor(objective="reg:absoluteerror", **few), {}),
        ("XGBRFClassifier", xgboost.XGBRFClassifier(**few), {"classes": 2}),
        ("XGBRegressor, dart", xgboost.XGBRegressor(booster="dart", rate_drop=0.2, **few), {}),
        (
            "XGBClassifier, dart, 3 classes",
            xgboost.XGBClassifier(booster="dart", rate_drop=0.2, **few),
            {"classes": 3},
        ),
        ("XGBClassifier, dart", xgboost.XGBClassifier(booster="dart", rate_drop=0.2, **few), {"classes": 2}),
    ):
        kind("xgboost", name)(fitted(estimator, **of))

    def boosted(rounds=30, classes=0, transform=None, **parameters):
        def train():
            x, y = data(classes, missing=0.1)
            y = y if transform is None else transform(y)
            if classes > 2:
                parameters["num_class"] = classes
            return xgboost.train({"max_depth": 5, **parameters}, xgboost.DMatrix(x, y), rounds)

        return train

    for name, train in (
        ("Booster, binary:logistic", boosted(classes=2, objective="binary:logistic")),
        ("Booster, binary:logitraw", boosted(classes=2, objective="binary:logitraw")),
        ("Booster, binary:hinge", boosted(classes=2, objective="binary:hinge")),
        ("Booster, multi:softprob", boosted(classes=3, objective="multi:softprob")),
        ("Booster, multi:softmax", boosted(classes=3, objective="multi:softmax")),
        ("Booster, reg:squarederror", boosted(base_score=0.3)),
        ("Booster, dart", boosted(booster="dart", rate_drop=0.3)),
        (
            "Booster, dart, 3 classes",
            boosted(classes=3, objective="multi:softprob", booster="dart", rate_drop=0.3),
        ),
        ("Booster, count:poisson", boosted(objective="count:poisson", transform=lambda y: np.exp(y / 3))),
        ("Booster, reg:gamma", boosted(objective="reg:gamma", transform=lambda y: np.exp(y / 3))),
        ("Booster, reg:tweedie", boosted(objective="reg:tweedie", transform=lambda y: np.exp(y / 3))),
        (
            "Booster, parallel trees",
            boosted(10, classes=2, objective="binary:logistic", num_parallel_tree=3, subsample=0.5),
        ),
        (
            "Booster, lossguide",
            boosted(tree_method="hist", grow_policy="lossguide", max_leaves=40, max_depth=0),
        ),
        ("Booster, gblinear", boosted(booster="gblinear")),
    ):
        kind("xgboost", f"XGBoost {name}")(train)

    @kind("xgboost", "XGBRanker")
    def _ranker():
        x, y = data(5)
        return xgboost.XGBRanker(**few).fit(x, y, qid=np.arange(len(x)) // 10)

    @kind("xgboost", "XGBRegressor, 0 as missing")
    def _zero():
        return xgboost.XGBRegressor(missing=0, **few).fit(*data())

    @kind("xgboost", "XGBClassifier, early stopping")
    def _early():
        x, y = data(3)
        model = xgboost.XGBClassifier(
            n_estimators=60, max_depth=4, learning_rate=1.0, early_stopping_rounds=3
        )
        model.fit(x[:900], y[:900], eval_set=[(x[900:], y[900:])], verbose=False)
        return model

    @kind("xgboost", "XGBClassifier, table with categories")
    def _table():
        return xgboost.XGBClassifier(tree_method="hist", enable_categorical=True, **few).fit(*table())

    @kind("xgboost", "XGBoost Booster, categories")
    def _categories():
        x, y = data()
        x[:, 5] = np.random.default_rng(5).integers(0, 90, size=len(x))
        y += np.sin(x[:, 5])
        kinds = ["c" if i in (4, 5) else "q" for i in range(x.shape[1])]
        matrix = xgboost.DMatrix(x, y, feature_types=kinds, enable_categorical=True)
        return xgboost.train({"tree_method": "hist", "max_depth": 6, "max_cat_to_onehot": 3}, matrix, 30)

    @kind("xgboost", "XGBRegressor, two targets")
    def _targets():
        x, y = data()
        return xgboost.XGBRegressor(**few).fit(x, np.stack([y, -y], axis=1))


# LightGBM


def lightgbm_kinds():
    import lightgbm

    few = {"n_estimators": 30, "verbose": -1, "n_jobs": 1}

    def fitted(estimator, **of):
        return lambda: estimator.fit(*data(**of))

    for name, estimator, of in (
        (
            "LGBMClassifier, 2 classes, missing values",
            lightgbm.LGBMClassifier(**few),
            {"classes": 2, "missing": 0.1},
        ),
        ("LGBMClassifier, 3 classes", lightgbm.LGBMClassifier(**few), {"classes": 3}),
        ("LGBMClassifier, 10 classes", lightgbm.LGBMClassifier(**few), {"classes": 10}),
        ("LGBMRegressor", lightgbm.LGBMRegressor(**few), {"missing": 0.1}),
        ("LGBMRegressor, zero as missing", lightgbm.LGBMRegressor(zero_as_missing=True, **few), {}),
        ("LGBMRegressor, square root", lightgbm.LGBMRegressor(reg_sqrt=True, **few), {}),
        ("LGBMRegressor, dart", lightgbm.LGBMRegressor(boosting_type="dart", **few), {}),
        (
            "LGBMRegressor, random forest",
            lightgbm.LGBMRegressor(boosting_type="rf", bagging_freq=1, bagging_fraction=0.5, **few),
            {},
        ),
        ("LGBMRegressor, linear leaves", lightgbm.LGBMRegressor(linear_tree=True, **few), {}),
    ):
        kind("lightgbm", name)(fitted(estimator, **of))

    def boosted(classes=0, transform=None, **parameters):
        def train():
            x, y = data(classes, missing=0.1)
            y = y if transform is None else transform(y)
            return lightgbm.train({"verbose": -1, "num_threads": 1, **parameters}, lightgbm.Dataset(x, y), 30)

        return train

    for name, train in (
        ("binary, sigmoid 0.7", boosted(2, objective="binary", sigmoid=0.7)),
        ("multiclass", boosted(3, objective="multiclass", num_class=3)),
        ("one against all", boosted(3, objective="multiclassova", num_class=3)),
        ("poisson", boosted(objective="poisson", transform=lambda y: np.exp(y / 3))),
        ("tweedie", boosted(objective="tweedie", transform=lambda y: np.exp(y / 3))),
        ("cross entropy", boosted(objective="cross_entropy", transform=lambda y: 1 / (1 + np.exp(-y)))),
        ("no missing values", boosted(use_missing=False)),
    ):
        kind("lightgbm", f"LightGBM Booster, {name}")(train)

    @kind("lightgbm", "LGBMClassifier, random forest, 3 classes")
    def _forest():
        forest = lightgbm.LGBMClassifier(boosting_type="rf", bagging_freq=1, bagging_fraction=0.5, **few)
        return forest.fit(*data(3))

    @kind("lightgbm", "LightGBM Booster, categories")
    def _categories():
        x, y = data(missing=0.05)
        x[:, 5] = np.random.default_rng(5).integers(0, 90, size=len(x))
        y += np.sin(x[:, 5])
        matrix = lightgbm.Dataset(x, y, categorical_feature=[4, 5])
        return lightgbm.train({"verbose": -1, "num_threads": 1, "min_data_per_group": 5}, matrix, 30)

    @kind("lightgbm", "LGBMClassifier, table with categories")
    def _table():
        return lightgbm.LGBMClassifier(**few).fit(*table())

    @kind("lightgbm", "LGBMRanker")
    def _ranker():
        x, y = data(5)
        return lightgbm.LGBMRanker(**few).fit(x, y, group=[10] * (len(x) // 10))


def main():
    folder, rows, wanted = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    for add in (sklearn_kinds, prepared_kinds, xgboost_kinds, lightgbm_kinds):
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
            ImportError,
            TypeError,
            ValueError,
        ) as error:  # this release does not have it, or there is no pandas
            absent = str(error).splitlines()[0]
            print(json.dumps({**line, "absent": absent, "releases": releases()}), flush=True)
            continue
        try:
            line["file"] = os.path.join(folder, f"{number}.native")
            line["proof"] = os.path.join(folder, f"{number}.proof")
            description = extract(model, line["file"], line["proof"], seed=1, rows=rows)
            line["releases"] = description["releases"]
        except RefusedError as refused:
            line = {"kind": name, "library": library, "refused": str(refused), "releases": releases()}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
