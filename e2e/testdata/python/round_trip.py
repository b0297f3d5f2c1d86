"""Writes and reads everything that a user keeps on a task. Ends with "ok"."""

import sys
from pathlib import Path

import numpy as np
from clearml import Model, OutputModel, Task

Task.set_random_seed(None)
task = Task.init(
    project_name="round trips/inner", task_name="everything", output_uri=True, reuse_last_task_id=False
)
parameters = task.connect({"rate": 0.1, "layers": [1, 2], "name": "plain", "none": None, "deep/er": True})
# ASCII only: the SDK itself reads back what it wrote for other letters as \\u escapes.
configuration = {
    "plain": 1,
    "a.dotted key": "#not a comment",
    "nested": {"url": "http://127.0.0.1:8008/a?b=c#d", "list": [1, 2.5, "drei", None, True]},
    "quotes": "say \"yes\" and 'no' \\ done",
    "empty": {},
}
task.set_configuration_object("settings", config_dict=configuration)
task.set_configuration_object("text", config_text="# kept = as it is: Größe ✓\nline two\n")
task.add_tags(["first", "second"])
task.set_user_properties(owner="somebody")
file = Path("a file.bin")
file.write_bytes(bytes(range(256)) * 4096)
folder = Path("folder")
folder.mkdir(exist_ok=True)
(folder / "one.txt").write_text("one")
task.upload_artifact("dict", {"x": [1, 2, 3], "y": "z"}, wait_on_upload=True)
task.upload_artifact("array", np.arange(12.0).reshape(3, 4), wait_on_upload=True)
task.upload_artifact("file", file, wait_on_upload=True)
task.upload_artifact("folder", folder, wait_on_upload=True)
weights = Path("weights.bin")
weights.write_bytes(b"w" * 100_000)
model = OutputModel(task=task, name="round trip model", framework="custom", tags=["kept"])
model.update_weights(weights_filename=str(weights), auto_delete_file=False)
task.flush(wait_for_uploads=True)
model_id = model.id
task.get_logger().report_text("a line of the console")
task.close()

read = Task.get_task(task_id=task.id)
assert read.get_status() == "completed", read.get_status()
assert read.get_project_name() == "round trips/inner", read.get_project_name()
assert sorted(read.get_tags()) == ["first", "second"], read.get_tags()
assert read.get_user_properties(value_only=True)["owner"] == "somebody"
stored = read.get_parameters_as_dict(cast=True)["General"]
assert stored["rate"] == 0.1 and stored["layers"] == [1, 2] and stored["name"] == "plain", stored
got = read.get_configuration_object_as_dict("settings")
assert got == configuration, f"{got} != {configuration}"
assert read.get_configuration_object("text") == "# kept = as it is: Größe ✓\nline two\n"
artifacts = read.artifacts
assert artifacts["dict"].get() == {"x": [1, 2, 3], "y": "z"}
assert np.array_equal(artifacts["array"].get(), np.arange(12.0).reshape(3, 4))
assert Path(artifacts["file"].get_local_copy()).read_bytes() == file.read_bytes()
assert (Path(artifacts["folder"].get_local_copy()) / "one.txt").read_text() == "one"

found = Model.query_models(project_name="round trips/inner", tags=["kept"])
assert [m.id for m in found] == [model_id], found
assert Path(found[0].get_local_copy()).read_bytes() == b"w" * 100_000
found[0].set_metadata("k", "v", "str")
assert Model(model_id).get_metadata("k") == "v"
assert not Model.query_models(project_name="round trips/inner", only_published=True)
found[0].publish()
assert [m.id for m in Model.query_models(project_name="round trips/inner", only_published=True)] == [model_id]
found[0].archive()
assert not Model.query_models(project_name="round trips/inner")

clone = Task.clone(source_task=read.id, name="a clone")
assert clone.get_status() == "created" and clone.get_configuration_object_as_dict("settings") == configuration
assert [t.id for t in Task.get_tasks(project_name="round trips/inner", task_name="^a clone$")] == [clone.id]
assert clone.delete(), "the clone could not be deleted"
try:
    Task.get_task(task_id=clone.id)
except ValueError:
    pass
else:
    sys.exit("a deleted task was found")
print("ok")
