"""Train a model that tells benign tumours from malignant ones, and register it with ClearML.

Without arguments it is trained on what was known before. With --truths it is trained again, on what
the service has seen since: the inputs from its request log, the truths from its feedback. The key
that joins them is the id of the request.
"""

import argparse
import os
import time
from pathlib import Path

import joblib
import pandas
from clearml import Task
from preprocess import FEATURES
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tumours import measured

LOG_LIMIT = 60  # seconds until the last rows of the request log are in files


def data_folder() -> Path:
    """The folder of a local clearml-serving."""
    home = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share")
    return Path(os.environ.get("CLEARML_SERVING_HOME") or home / "clearml-serving")


def logged(log: Path, truths: Path) -> pandas.DataFrame:
    """The rows of the request log whose truths are known."""
    known = pandas.read_json(truths, lines=True)
    known = pandas.DataFrame(
        {"request_id": known["key"].astype(str), "truth": [int(values[0]) for values in known["truth"]]}
    )
    end = time.monotonic() + LOG_LIMIT
    while True:
        files = sorted(log.rglob("*.parquet"))
        rows = pandas.concat([pandas.read_parquet(file) for file in files]) if files else None
        joined = known.merge(rows, on="request_id") if rows is not None else known[:0]
        if len(joined) == len(known):
            return joined
        if time.monotonic() > end:
            raise SystemExit(f"{log} has {len(joined)} of {len(known)} requests after {LOG_LIMIT} s")
        time.sleep(0.5)


arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("--truths", type=Path, help='a file of "clearml-serving feedback export"')
arguments.add_argument("--log", type=Path, default=data_folder() / "request-log", help="the request log")
chosen = arguments.parse_args()

task = Task.init(project_name="serving examples", task_name="train retrain model", output_uri=True)
if chosen.truths:
    seen = logged(chosen.log, chosen.truths)
    X, y = seen[[f"input_{name}" for name in FEATURES]].to_numpy(), seen["truth"].to_numpy()
    print(f"trained on {len(seen)} requests of versions {sorted(seen['version'].unique())}")
else:
    X, y = measured("known")
    print(f"trained on {len(X)} tumours that were known before")

model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
X_unseen, y_unseen = measured("unseen")
print(f"test: accuracy {accuracy_score(y_unseen, model.predict(X_unseen)):.3f} with the new device")

joblib.dump(model, "retrain-model.pkl", compress=9)
task.close()  # waits until the model file is uploaded
