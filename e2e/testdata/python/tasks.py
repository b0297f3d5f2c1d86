"""Finds, changes, clones, enqueues, stops, publishes, resets and deletes tasks. Ends with "ok"."""

from clearml import Task
from clearml.backend_api.session.client import APIClient

project = "tasks"
ids = {}
for name, kind, tags in (
    ("one (1)", Task.TaskTypes.training, ["red", "blue"]),
    ("two", Task.TaskTypes.testing, ["red"]),
    ("three", Task.TaskTypes.inference, []),
):
    task = Task.create(project_name=project, task_name=name, task_type=str(kind))
    task.add_tags(tags)
    task.set_comment(f"comment of {name}")
    ids[name] = task.id
below = Task.create(project_name=f"{project}/below", task_name="four").id

everything = set(ids.values())


def queried(**query):
    return set(Task.query_tasks(**query))


assert queried(project_name=project) == everything, Task.query_tasks(project_name=project)
assert queried(project_name=project, task_name="^t") == {ids["two"], ids["three"]}
assert queried(project_name=[project], tags=["red", "-blue"]) == {ids["two"]}
assert queried(project_name=project, tags=["__$all", "red", "blue"]) == {ids["one (1)"]}
assert queried(project_name=project, task_filter={"type": ["inference"]}) == {ids["three"]}
assert queried(project_name=project, task_filter={"status": ["in_progress"]}) == set()
assert queried(task_filter={"_all_": {"fields": ["comment"], "pattern": "COMMENT of two"}}) == {ids["two"]}
assert queried(task_filter={"id": [below, ids["two"]]}) == {below, ids["two"]}
rows = Task.query_tasks(
    project_name=project, additional_return_fields=["name", "type"], task_filter={"order_by": ["-name"]}
)
assert [row["name"] for row in rows] == ["two", "three", "one (1)"], rows
assert [t.id for t in Task.get_tasks(project_name=project, task_name="one")] == [ids["one (1)"]]
assert Task.get_task(project_name=project, task_name="one (1)").id == ids["one (1)"]
assert Task.get_project_id(project), "the project has no id"
assert "below" in " ".join(Task.get_projects()[i].name for i in range(len(Task.get_projects())))

# A template is cloned, edited and put in a queue.
template = Task.get_task(task_id=ids["one (1)"])
template.set_parameters({"Args/rate": 0.1, "General/layers": [1, 2]})
template.set_configuration_object("settings", config_dict={"a": 1})
template.set_base_docker("python:3.12", docker_arguments="-e A=1")
copy = Task.clone(source_task=template, name="a copy", comment="copied", parent=template.id)
assert (copy.get_status(), copy.parent, copy.comment) == ("created", template.id, "copied")
copy.set_parameters_as_dict({"Args": {"rate": 0.5}, "General": {"layers": [3]}})
copy.set_parameter("Args/new", "value")
copy.set_configuration_object("settings", config_dict={"a": 2})
copy.rename("a changed copy")
copy.move_to_project(new_project_name="moved here")
read = Task.get_task(task_id=copy.id)
assert read.get_parameters(cast=True) == {"Args/rate": 0.5, "General/layers": [3], "Args/new": "value"}
assert read.get_configuration_object_as_dict("settings") == {"a": 2}
assert (read.name, read.get_project_name()) == ("a changed copy", "moved here")
assert read.get_base_docker() == "python:3.12 -e A=1", read.get_base_docker()
assert template.get_parameters()["Args/rate"] == "0.1", "the clone's edit changed the template"
client = APIClient()
Task.enqueue(copy, queue_name="default")
assert copy.get_status() == "queued", copy.get_status()
assert [entry.task for entry in client.queues.get_all(name="^default$")[0].entries] == [copy.id]
Task.dequeue(copy)
assert Task.get_task(task_id=copy.id).get_status() in ("created", "stopped"), copy.get_status()

# The states that a user moves a task through.
copy.mark_started(force=True)
assert copy.get_status() == "in_progress"
copy.set_progress(40)
copy.mark_stopped(force=True, status_message="enough")
assert Task.get_task(task_id=copy.id).get_status() == "stopped"
copy.mark_started(force=True)
copy.mark_failed(force=True, status_reason="broken")
assert Task.get_task(task_id=copy.id).get_status() == "failed"
copy.reset(force=True)
assert Task.get_task(task_id=copy.id).get_status() == "created"
copy.mark_started(force=True)
copy.mark_completed(force=True)
copy.publish()
published = Task.get_task(task_id=copy.id)
assert published.get_status() == "published", published.get_status()
assert not published.delete(raise_on_error=False), "a published task was deleted"
three = Task.get_task(task_id=ids["three"])
three.set_archived(True)
assert three.get_archived(), "the task was not archived"
current = Task.get_tasks(project_name=project, allow_archived=False)
assert {t.id for t in current} == everything - {ids["three"]}, current
three.set_archived(False)
assert not Task.get_task(task_id=three.id).get_archived()
template.export_task()
imported = Task.import_task({**template.export_task(), "name": "imported"})
assert imported.id != template.id and imported.get_parameters() == template.get_parameters()
imported.close()
for made in queried(project_name=project):
    assert Task.get_task(task_id=made).delete(), made
assert queried(project_name=project) == set()
print("ok")
