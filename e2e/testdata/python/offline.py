"""Runs without a server, then imports what the run left. Ends with "ok"."""

from clearml import Task

Task.set_offline(True)
task = Task.init(
    project_name="offline",
    task_name="a run on a train",
    output_uri=True,
    reuse_last_task_id=False,
    auto_resource_monitoring=False,
)
task.connect({"rate": 0.1})
task.add_tags(["offline"])
task.set_configuration_object("settings", config_dict={"a": [1, 2]})
task.get_logger().report_scalar("loss", "train", value=0.5, iteration=1)
task.get_logger().report_text("a line of the run")
task.upload_artifact("notes", {"x": 1})
# No model: the SDK fails by itself when one is made offline (DummyModel has no "locked").
session = task.get_offline_mode_folder()
task.close()
Task.set_offline(False)

imported = Task.import_offline_session(f"{session}.zip")
read = Task.get_task(task_id=imported)
assert read.name == "a run on a train" and read.get_project_name() == "offline", read.name
assert read.get_status() == "completed", read.get_status()
assert read.get_parameters()["General/rate"] == "0.1" and "offline" in read.get_tags()
assert read.get_configuration_object_as_dict("settings") == {"a": [1, 2]}
assert read.get_reported_scalars()["loss"]["train"]["y"] == [0.5], read.get_reported_scalars()
assert "a line of the run" in "".join(read.get_reported_console_output(number_of_reports=50))
assert read.artifacts["notes"].get() == {"x": 1}
print("ok")
