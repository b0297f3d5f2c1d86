"""Trains a model of two numbers, uploads it to a place by the SDK and reads it back.

train_to.py PLACE PROJECT
"""

import sys
from pathlib import Path

import joblib
from clearml import Model, StorageManager, Task
from sklearn.linear_model import LogisticRegression

place, project = sys.argv[1:]
task = Task.init(
    project_name=project,
    task_name="train elsewhere",
    output_uri=place,
    reuse_last_task_id=False,
    auto_resource_monitoring=False,
)
model = LogisticRegression().fit([[-2], [-1], [1], [2]], [0, 0, 1, 1])
joblib.dump(model, "tiny.pkl", compress=9)  # the SDK does not notice one without compression
task.upload_artifact("notes", artifact_object={"place": place}, wait_on_upload=True)
task.close()

stored = Model.query_models(project_name=project)[0]
assert stored.url.startswith(place), stored.url
copy = StorageManager.get_local_copy(stored.url, force_download=True)
assert Path(copy).read_bytes() == Path("tiny.pkl").read_bytes(), "another file came back"
print("url=" + stored.url)
print("ok")
