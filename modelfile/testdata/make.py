"""Makes the model files of this folder, with scikit-learn, pandas, XGBoost and LightGBM."""

import pickle

import joblib
import lightgbm
import numpy
import pandas
import xgboost
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler


class Own(LinearRegression):
    """A class of the script that saves the model."""


rng = numpy.random.default_rng(1)
x = rng.random((60, 3))
y = x @ [1.0, 2.0, 3.0]
table = pandas.DataFrame(x, columns=["age", "net worth", "größe"])
plain = LinearRegression().fit(x, y)
named = make_pipeline(StandardScaler(), LinearRegression()).fit(table, y)


def pickled(name, value, protocol=4):
    with open(name, "wb") as file:
        pickle.dump(value, file, protocol=protocol)


pickled("plain.pkl", plain)
pickled("protocol0.pkl", plain, 0)
pickled("protocol2.pkl", plain, 2)
pickled("named.pkl", named)
pickled("dictionary.pkl", {"model": plain, "threshold": 0.5})
pickled("pair.pkl", (plain, 1))
pickled("text.pkl", "a text")
pickled("own.pkl", Own().fit(x, y))
pickled("table.pkl", table.head(2))
joblib.dump(named, "named.joblib")
joblib.dump(named, "zlib.joblib", compress=3)
joblib.dump(named, "named.joblib.gz")
joblib.dump(named, "named.joblib.bz2")
joblib.dump(plain, "plain.joblib.xz")
encoder = OneHotEncoder(handle_unknown="ignore")
encoders = ColumnTransformer([("n", StandardScaler(), ["age"]), ("c", encoder, ["city"])])
people = pandas.DataFrame({"age": [1, 2, 3, 4], "city": ["a", "b", "a", "b"]})
joblib.dump(make_pipeline(encoders, LinearRegression()).fit(people, [0, 1, 0, 1]), "columns.joblib")
pickled("classifier.pkl", xgboost.XGBRegressor(n_estimators=1, max_depth=1, n_jobs=1).fit(x, y))
for names, stem in ((list(table.columns), "named"), (None, "unnamed")):
    booster = xgboost.train({"max_depth": 1, "nthread": 1}, xgboost.DMatrix(x, y, feature_names=names), 1)
    booster.save_model(f"{stem}.json")
    booster.save_model(f"{stem}.ubj")
params = {"verbose": -1, "num_threads": 1, "num_leaves": 3}
lightgbm.train(params, lightgbm.Dataset(x, y, feature_name=["a", "b", "c"]), 1).save_model("named.txt")
lightgbm.train(params, lightgbm.Dataset(x, y), 1).save_model("unnamed.txt")
