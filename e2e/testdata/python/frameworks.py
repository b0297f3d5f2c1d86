"""Trains with scikit-learn, XGBoost and LightGBM; the SDK registers what they save.

Prints the models as JSON.
"""

import json
from pathlib import Path

import joblib
import lightgbm
import numpy as np
import xgboost
from clearml import Model, Task
from sklearn.ensemble import RandomForestRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

project = "frameworks"
task = Task.init(
    project_name=project,
    task_name="train three",
    output_uri=True,
    reuse_last_task_id=False,
    auto_resource_monitoring=False,
)
random = np.random.default_rng(7)
rows = random.normal(size=(200, 3))
target = rows @ np.array([1.0, -2.0, 0.5])

forest = make_pipeline(StandardScaler(), RandomForestRegressor(n_estimators=5, n_jobs=1, random_state=1))
forest.fit(rows, target)
joblib.dump(forest, "forest.pkl", compress=True)  # the SDK does not notice one without compression
booster = xgboost.train({"nthread": 1, "max_depth": 3}, xgboost.DMatrix(rows, target), num_boost_round=5)
booster.save_model("booster.json")
leaves = lightgbm.train(
    {"objective": "regression", "num_threads": 1, "verbose": -1},
    lightgbm.Dataset(rows, target),
    num_boost_round=5,
)
leaves.save_model("leaves.txt")
task.flush(wait_for_uploads=True)
task.close()

probe = rows[:1]
expected = {
    "forest": forest.predict(probe)[0],
    "booster": booster.predict(xgboost.DMatrix(probe))[0],
    "leaves": leaves.predict(probe)[0],
}
# What the server gave back is loaded and asked the same.
asked = {
    "forest": lambda file: joblib.load(file).predict(probe)[0],
    "booster": lambda file: xgboost.Booster(model_file=file).predict(xgboost.DMatrix(probe))[0],
    # By its text: with model_file the SDK's own hook loses the argument.
    "leaves": lambda file: lightgbm.Booster(model_str=Path(file).read_text()).predict(probe)[0],
}
models = {}
for model in Model.query_models(project_name=project):
    name = model.name.removeprefix("train three - ")
    copy = model.get_local_copy(force_download=True)
    got = float(asked[name](copy))
    assert abs(got - float(expected[name])) < 1e-9, (name, got, expected[name])
    models[name] = {
        "id": model.id,
        "framework": model.framework,
        "url": model.url,
        "task": model.task,
        "answer": got,
    }
print("result=" + json.dumps({"task": task.id, "probe": probe[0].tolist(), "models": models}))
