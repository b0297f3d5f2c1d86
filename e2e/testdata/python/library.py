"""Keeps models: registers, describes, finds, changes, publishes and removes them. Ends with "ok"."""

from pathlib import Path

from clearml import InputModel, Model, OutputModel, Task

project = "library/of models"
task = Task.init(
    project_name=project,
    task_name="keeps models",
    output_uri=True,
    reuse_last_task_id=False,
    auto_connect_frameworks=False,
    auto_resource_monitoring=False,
)


def written(name: str, text: str) -> str:
    Path(name).write_text(text)
    return name


first = OutputModel(
    task=task,
    name="first [1]",
    framework="ONNX",
    tags=["kept", "new"],
    comment="a comment, é ✓",
    label_enumeration={"cat": 1, "dog": 2},
    config_dict={"layers": [1, 2], "rate": 0.5},
)
first.update_weights(written("one.onnx", "1" * 1000), auto_delete_file=False, iteration=3)
first.set_metadata("accuracy", "0.5", "float")
first.set_metadata("a key.with dots/é", "v", "str")
first.update_labels({"cat": 1, "dog": 2, "bird": 3})
first.update_design(config_text="layers = 3")
first.report_scalar("quality", "auc", value=0.7, iteration=1)
first.report_single_value("best", 0.7)
second = OutputModel(task=task, name="second", framework="custom")
folder = Path("two")
folder.mkdir()
written("two/a.txt", "a")
written("two/b.txt", "b")
second.update_weights_package(weights_path=str(folder), auto_delete_file=False)
task.flush(wait_for_uploads=True)
earlier = first.url
first.update_weights(written("one more.onnx", "2" * 1000), auto_delete_file=False, iteration=5)
task.flush(wait_for_uploads=True)
assert first.url != earlier, first.url
registered = InputModel.import_model(
    weights_url="https://example.com/somewhere/model.bin",
    name="elsewhere",
    framework="PyTorch",
    project=project,
)
again = InputModel.import_model(weights_url="https://example.com/somewhere/model.bin", name="elsewhere")
assert again.id == registered.id, "the same address became two models"
task.connect(registered, name="base")
used = InputModel(model_id=first.id)
task.connect(used)
task.close()

read = Model(first.id)
assert (read.name, read.framework) == ("first [1]", "ONNX")
assert read.comment.endswith("a comment, é ✓"), read.comment  # the SDK puts its own lines before it
assert read.task == task.id and sorted(read.tags) == ["kept", "new"], read.tags
assert read.labels == {"cat": 1, "dog": 2, "bird": 3}, read.labels
assert read.config_text == "layers = 3", read.config_text
assert read.get_metadata("accuracy") == "0.5"
assert read.get_metadata("a key.with dots/é") == "v", read.get_all_metadata()
assert read.get_all_metadata_casted()["accuracy"] == 0.5
assert Path(read.get_local_copy()).read_text() == "2" * 1000
assert {p.name for p in Path(Model(second.id).get_local_copy()).rglob("*.txt")} == {"a.txt", "b.txt"}

finished = Task.get_task(task_id=task.id)
assert [m.id for m in finished.models["output"]] == [first.id, second.id], finished.models
assert {m.id for m in finished.models["input"]} == {registered.id, first.id}, finished.models
assert finished.models["input"]["base"].id == registered.id


def found(**query):
    return {m.id for m in Model.query_models(project_name=project, **query)}


assert found() == {first.id, second.id, registered.id}, found()
assert found(model_name="first [1]") == {first.id}
assert found(tags=["kept"]) == {first.id}
assert found(tags=["-kept"]) == {second.id, registered.id}
assert found(tags=["__$all", "kept", "new"]) == {first.id}
assert found(metadata={"accuracy": "0.5"}) == {first.id}
assert found(only_published=True) == set()
assert Model.query_models(project_name=project)[0].id == registered.id, "the newest does not come first"
assert len(Model.query_models(project_name=project, max_results=2)) == 2

# What a user changes later.
read.tags = ["kept", "old"]
read.name, read.comment = "renamed", "said later"
changed = Model(first.id)
assert (changed.name, changed.comment, changed.framework) == ("renamed", "said later", "ONNX")
assert sorted(changed.tags) == ["kept", "old"], changed.tags
assert changed.set_all_metadata({"only": {"type": "int", "value": "3"}}, replace=True)
assert Model(first.id).get_all_metadata_casted() == {"only": 3}, Model(first.id).get_all_metadata()
changed.publish()
assert Model(first.id).published and found(only_published=True) == {first.id}
changed.archive()
assert found() == {second.id, registered.id} and first.id in found(include_archived=True)
changed.unarchive()
assert first.id in found()

assert Model.remove(second.id, delete_weights_file=True, force=True), "the model was not removed"
assert second.id not in found(include_archived=True)
print("ok")
