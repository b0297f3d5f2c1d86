"""Train gradient-boosted trees that classify three species of iris, and register them with ClearML.

The data are the 150 flowers that ship with scikit-learn. This script has no serving code:
`Task.init` records the run, and `save_model` makes the SDK upload and register the file as the
model "train lightgbm model - lgbm_model".
"""

import lightgbm as lgb
from clearml import Task
from sklearn.datasets import load_iris
from sklearn.metrics import accuracy_score
from sklearn.model_selection import train_test_split

task = Task.init(project_name="serving examples", task_name="train lightgbm model", output_uri=True)

iris = load_iris()
X_train, X_test, y_train, y_test = train_test_split(
    iris.data, iris.target, test_size=0.2, random_state=100, stratify=iris.target
)
parameters = task.connect(
    {"objective": "multiclass", "num_class": 3, "metric": "multi_logloss", "num_leaves": 31, "verbose": -1}
)
booster = lgb.train(
    dict(parameters),
    lgb.Dataset(X_train, label=y_train),
    num_boost_round=40,
    valid_sets=[lgb.Dataset(X_test, label=y_test)],
)

accuracy = accuracy_score(y_test, booster.predict(X_test).argmax(axis=1))
task.get_logger().report_single_value("test accuracy", accuracy)
print(f"test: accuracy {accuracy:.3f} on {len(y_test)} flowers never seen before")

booster.save_model("lgbm_model")
task.close()  # waits until the model file is uploaded
print(f"trained and registered: {task.get_project_name()}/{task.name} - lgbm_model")
