"""Trains a model of two numbers and registers it: train_tiny.py SIGN ("+" or "-")."""

import sys

import joblib
from clearml import Task
from sklearn.linear_model import LogisticRegression

task = Task.init(
    project_name="tiny",
    task_name="train tiny",
    output_uri=True,
    reuse_last_task_id=False,
    auto_resource_monitoring=False,
)
sign = 1 if sys.argv[1] == "+" else -1
model = LogisticRegression().fit([[-2], [-1], [1], [2]], [-sign, -sign, sign, sign])
joblib.dump(model, "tiny.pkl", compress=9)  # the SDK does not notice one without compression
task.close()
