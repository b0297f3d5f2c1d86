"""Prints the quality of predictions by scikit-learn's functions: quality.py PREDICTIONS.csv TRUTHS.csv."""

import csv
import json
import sys

from sklearn.metrics import accuracy_score, f1_score, log_loss, mean_absolute_error, mean_squared_error

with open(sys.argv[2], newline="") as file:
    truth = {row["id"]: int(row["repaid"]) for row in csv.DictReader(file)}
with open(sys.argv[1], newline="") as file:
    rows = [row for row in csv.DictReader(file) if row["id"] in truth]

true = [truth[row["id"]] for row in rows]
predicted = [int(row["y_pred"]) for row in rows]
score = [float(row["y_pred_proba"]) for row in rows]

bins = [[0, 0.0, 0] for _ in range(10)]
for p, y in zip(score, true):
    number = sum(1 for i in range(1, 10) if i * 0.1 < p)
    bins[number][0] += 1
    bins[number][1] += p
    bins[number][2] += y

json.dump(
    {
        "rows": len(rows),
        "accuracy": accuracy_score(true, predicted),
        "f1_macro": f1_score(true, predicted, average="macro"),
        "f1_binary": f1_score(true, predicted),
        "log_loss": log_loss(true, score),
        "ece": sum(abs(s - y) for n, s, y in bins if n) / len(rows),
        "mae": mean_absolute_error(true, score),
        "rmse": mean_squared_error(true, score) ** 0.5,
    },
    sys.stdout,
)
