"""Trains a model of named columns and one of rows in the current folder, and writes what they predict."""

import json

import joblib
import numpy
import pandas
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

random = numpy.random.default_rng(7)
rows = random.normal(size=(300, 3))
labels = (rows @ [1.0, -2.0, 0.5] > 0).astype(int)
columns = ["age", "income", "debt"]
forest = RandomForestClassifier(20, random_state=0).fit(pandas.DataFrame(rows, columns=columns), labels)
line = LogisticRegression().fit(rows, labels)
joblib.dump(forest, "forest.pkl")
joblib.dump(line, "line.pkl")
asked = random.normal(size=(20, 3))
answers = {
    "columns": columns,
    "rows": asked.tolist(),
    "forest": forest.predict(pandas.DataFrame(asked, columns=columns)).tolist(),
    "line": line.predict_proba(asked).tolist(),
}
with open("answers.json", "w") as file:
    json.dump(answers, file)
