"""Stores and reads files under names that paths and urls trip over. Ends with "ok"."""

from pathlib import Path

from clearml import Task

names = [
    "with space",
    "[brackets] (x)",
    "hash#tag",
    "per%20cent %",
    "Größe é ✓",
    "a//b",
    "plus+and&amp;?q=1",
    "'quoted' \"twice\"",
]
# Once as the names of a project, a task and its artifacts, and once all in one. Servers refuse an
# empty part in a project's name.
for project in ("odd [#1] per%20cent é ✓/inner (x)", "odd + & ' \" ; = ?"):
    name = f"task {project} a//b"
    task = Task.init(
        project_name=project,
        task_name=name,
        reuse_last_task_id=False,
        auto_connect_frameworks=False,
        auto_resource_monitoring=False,
    )
    for number, artifact in enumerate(names):
        file = Path(f"{number} " + artifact.replace("/", "_"))
        file.write_bytes(artifact.encode() * 1000)
        assert task.upload_artifact(artifact, file)
    task_id = task.id
    task.close()
    read = Task.get_task(task_id=task_id)
    assert read.name == name, (read.name, name)
    assert read.get_project_name() == project, read.get_project_name()
    assert Task.get_task(project_name=project, task_name=name).id == task_id
    for artifact in names:
        got = Path(read.artifacts[artifact].get_local_copy(force_download=True)).read_bytes()
        assert got == artifact.encode() * 1000, f"{artifact}: {got[:80]!r}"
print("ok")
