"""Clones a task and edits the clone's parameters and configuration: edit_clone.py TASK.

Prints the clone's id.
"""

import sys

from clearml import Task

clone = Task.clone(source_task=sys.argv[1], name="a clone")
clone.set_parameters({"General/rate": 0.5, "General/layers": [3], "General/deep/er": True})
clone.set_configuration_object("settings", config_dict={"a": 2, "b": "text"})
print(f"id={clone.id}")
