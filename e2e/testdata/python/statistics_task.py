"""Finds the task that the original's statistics registered for the service "shared". Ends with "ok"."""

from clearml import Task

found = Task.query_tasks(
    task_name="^shared - statistics controller$",
    additional_return_fields=["status", "type", "system_tags"],
)
assert len(found) == 1, found
kind, status = (getattr(found[0][key], "value", found[0][key]) for key in ("type", "status"))
assert (kind, status) == ("monitor", "in_progress"), found
assert "service" in found[0]["system_tags"], found
print("ok")
