"""Train a boosted-trees model on the iris flowers, and register it with ClearML.

The data are the 150 flowers that ship with scikit-learn. This script has no serving code:
`Task.init` records the run, and `save_model` makes the SDK upload and register the file as the
model "train xgboost model - xgb_model".
"""

import xgboost as xgb
from clearml import Task
from sklearn.datasets import load_iris
from sklearn.metrics import mean_absolute_error
from sklearn.model_selection import train_test_split

task = Task.init(project_name="serving examples", task_name="train xgboost model", output_uri=True)

iris = load_iris()
X_train, X_test, y_train, y_test = train_test_split(
    iris.data, iris.target, test_size=0.2, random_state=100, stratify=iris.target
)
parameters = task.connect({"objective": "reg:squarederror", "max_depth": 3, "eta": 0.1, "rounds": 100})
rounds = int(parameters.pop("rounds"))
evaluation = {}
booster = xgb.train(
    dict(parameters),
    xgb.DMatrix(X_train, label=y_train),
    num_boost_round=rounds,
    evals=[(xgb.DMatrix(X_test, label=y_test), "test")],
    evals_result=evaluation,
    verbose_eval=25,
)

error = mean_absolute_error(y_test, booster.predict(xgb.DMatrix(X_test)))
task.get_logger().report_single_value("test mean absolute error", error)
print(f"test: mean absolute error {error:.3f} on {len(y_test)} flowers never seen before")

booster.save_model("xgb_model")
task.close()  # waits until the model file is uploaded
print(f"trained and registered: {task.get_project_name()}/{task.name} - xgb_model")
