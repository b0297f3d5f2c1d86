"""The kinds of linear models, of preparation, and of models of models, for study.py and make.py."""

import numpy as np
from sklearn import calibration, ensemble, impute, linear_model, preprocessing, svm
from sklearn.pipeline import make_pipeline


def numbers():
    """Return name, model and the arguments of data."""
    scaler = preprocessing.StandardScaler
    trees = {"n_estimators": 10, "random_state": 1}
    return (
        ("LogisticRegression, 2 classes", linear_model.LogisticRegression(), {"classes": 2}),
        (
            "LogisticRegression, 3 classes",
            make_pipeline(scaler(), linear_model.LogisticRegression()),
            {"classes": 3},
        ),
        (
            "SGDClassifier, 3 classes",
            make_pipeline(scaler(), linear_model.SGDClassifier(loss="log_loss", random_state=1)),
            {"classes": 3},
        ),
        (
            "LinearSVC",
            make_pipeline(preprocessing.RobustScaler(), svm.LinearSVC(random_state=1)),
            {"classes": 3},
        ),
        ("RidgeClassifier", linear_model.RidgeClassifier(), {"classes": 3}),
        ("LinearRegression", linear_model.LinearRegression(), {}),
        ("Ridge", make_pipeline(preprocessing.MinMaxScaler(), linear_model.Ridge()), {}),
        ("Lasso", make_pipeline(preprocessing.MaxAbsScaler(), linear_model.Lasso(0.01)), {}),
        ("ElasticNet", linear_model.ElasticNet(0.01), {}),
        ("SGDRegressor", make_pipeline(scaler(), linear_model.SGDRegressor(random_state=1)), {}),
        ("LinearSVR", make_pipeline(scaler(), svm.LinearSVR(random_state=1)), {}),
        ("StandardScaler", scaler(), {}),
        ("MinMaxScaler", preprocessing.MinMaxScaler(clip=True), {}),
        ("MaxAbsScaler", preprocessing.MaxAbsScaler(), {}),
        ("RobustScaler", preprocessing.RobustScaler(), {}),
        ("SimpleImputer", impute.SimpleImputer(strategy="median"), {"missing": 0.1}),
        (
            "imputed, scaled forest",
            make_pipeline(impute.SimpleImputer(), scaler(), ensemble.RandomForestClassifier(**trees)),
            {"classes": 3, "missing": 0.1},
        ),
        (
            "calibrated by a sigmoid",
            calibration.CalibratedClassifierCV(linear_model.RidgeClassifier(), cv=3),
            {"classes": 2},
        ),
        (
            "calibrated by isotonic regression",
            calibration.CalibratedClassifierCV(
                ensemble.RandomForestClassifier(**trees), method="isotonic", cv=2
            ),
            {"classes": 3},
        ),
        (
            "voting, trees",
            ensemble.VotingClassifier(
                [
                    ("a", ensemble.RandomForestClassifier(**trees)),
                    ("b", ensemble.ExtraTreesClassifier(**trees)),
                ],
                voting="soft",
                weights=[0.3, 0.9],
            ),
            {"classes": 3},
        ),
        (
            "voting, regression",
            ensemble.VotingRegressor(
                [("a", ensemble.RandomForestRegressor(**trees)), ("b", linear_model.LinearRegression())]
            ),
            {},
        ),
        (
            "FunctionTransformer",
            make_pipeline(preprocessing.FunctionTransformer(np.abs), linear_model.Ridge()),
            {},
        ),
    )


def columns(last):
    """Return a pipeline of named columns: texts, numbers, missing values."""
    from sklearn.compose import ColumnTransformer

    made = ColumnTransformer(
        [
            (
                "texts",
                make_pipeline(
                    impute.SimpleImputer(strategy="most_frequent"),
                    preprocessing.OneHotEncoder(handle_unknown="ignore"),
                ),
                ["c0"],
            ),
            (
                "codes",
                preprocessing.OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
                ["c1"],
            ),
            ("numbers", make_pipeline(impute.SimpleImputer(), preprocessing.StandardScaler()), ["x0", "x1"]),
            ("rest", "passthrough", ["x2"]),
        ]
    )
    return make_pipeline(made, last)


def kinds(kind, data, table):
    """Add the kinds."""
    for name, model, of in numbers():
        kind("scikit-learn", name)(lambda model=model, of=of: model.fit(*data(**of)))

    def texts(last):
        frame, y = table()
        frame = frame.astype({"c0": object, "c1": object})
        return columns(last).fit(frame, y)

    for name, last in (
        ("ColumnTransformer, linear", linear_model.LogisticRegression()),
        ("ColumnTransformer, forest", ensemble.RandomForestClassifier(n_estimators=10, random_state=1)),
    ):
        kind("scikit-learn", name)(lambda last=last: texts(last))
