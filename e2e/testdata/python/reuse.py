"""Starts one and the same task again and prints its id; with "artifact" it leaves one."""

import sys

from clearml import Task

task = Task.init(project_name="reuse", task_name="again", auto_resource_monitoring=False)
task.connect({"run": len(sys.argv)})
if "artifact" in sys.argv:
    task.upload_artifact("kept", {"x": 1}, wait_on_upload=True)
print(f"id={task.id}")
task.close()
