"""Trains nothing: a model whose task has its training data as an artifact."""

import csv
import gzip
import pathlib
import random

from clearml import OutputModel, Task

task = Task.init(project_name="drifty", task_name="train drifty")
random.seed(1)
with gzip.open("train_data.csv.gz", "wt", newline="") as file:  # as the SDK stores a DataFrame
    rows = csv.writer(file)
    rows.writerow(["", "age", "animal"])
    rows.writerows([i, random.gauss(40, 10), random.choice(["cat", "cat", "dog"])] for i in range(2000))
task.upload_artifact("train_data", "train_data.csv.gz", wait_on_upload=True)
pathlib.Path("drifty.bin").write_bytes(b"a model")
model = OutputModel(task, name="drifty model")
model.update_weights("drifty.bin", auto_delete_file=False)
task.flush(wait_for_uploads=True)
print(f"id={model.id}")
task.close()
