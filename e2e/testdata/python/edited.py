"""A script whose parameters are edited on a clone: prints its id and what it ran with."""

import json

from clearml import Task

task = Task.init(
    project_name="edited",
    task_name="runs with what it is given",
    reuse_last_task_id=False,
    auto_resource_monitoring=False,
)
parameters = task.connect({"rate": 0.1, "layers": [1, 2], "deep": {"er": True}})
settings = task.connect_configuration({"a": 1, "b": "text"}, name="settings")
print("result=" + json.dumps({"id": task.id, "parameters": dict(parameters), "settings": dict(settings)}))
task.close()
