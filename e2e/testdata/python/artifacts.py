"""Uploads artifacts of every kind, reads them back by another handle and deletes them. Ends with "ok"."""

import hashlib
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pandas as pd
import requests
from clearml import Task
from PIL import Image

task = Task.init(
    project_name="artifacts",
    task_name="artifacts of every kind",
    reuse_last_task_id=False,
    auto_connect_frameworks=False,
    auto_resource_monitoring=False,
)
frame = pd.DataFrame({"Größe": [1.5, 2.5], "name": ["a", "é ✓"]}, index=["x", "y"])
many = np.arange(10_000.0).reshape(100, 100)
picture = Image.new("RGB", (32, 16), "green")
file = Path("some file [1].bin")
file.write_bytes(bytes(range(256)) * 1000)
folder = Path("folder of files")
(folder / "below").mkdir(parents=True)
for name in ("a.txt", "b.txt", "below/c d.txt"):
    (folder / name).write_text(name)
kinds = {
    "frame": frame,
    "array": many,
    "dict": {"x": [1, 2, None], "Größe": {"é": True}},
    "ordered": OrderedDict(b=1, a=2),
    "list": [1, "two", 3.0],
    "text": "some text, é ✓\n",
    "number": 12,
    "picture": picture,
    "file": file,
    "folder": folder,
    "pattern": str(folder / "*.txt"),
}
for name, value in kinds.items():
    assert task.upload_artifact(name, value, metadata={"kind": name}, wait_on_upload=True), name
assert task.upload_artifact("pickled", {1, 2, 3}, auto_pickle=True, wait_on_upload=True)
assert task.upload_artifact("link", "http://127.0.0.1:9/somewhere else.bin", wait_on_upload=True)
task.register_artifact("watched", frame, metadata={"kind": "watched"})
frame.loc["z"] = [3.5, "later"]
task.upload_artifact("dict", {"replaced": True}, wait_on_upload=True)
task.flush(wait_for_uploads=True)


def there(url):
    """Says whether the file server has it, asked with the headers of the SDK's own downloads."""
    headers = task._get_default_session().add_auth_headers({})
    return requests.get(url, headers=headers, timeout=30).status_code == 200


task.close()

read = Task.get_task(task_id=task.id)
artifacts = read.artifacts
assert set(artifacts) == {*kinds, "pickled", "link", "watched"}, sorted(artifacts)
got = artifacts["frame"].get()
assert list(got.columns) == ["Größe", "name"] and got["name"].tolist() == ["a", "é ✓"], got
assert np.array_equal(artifacts["array"].get(), many)
assert artifacts["dict"].get() == {"replaced": True}, artifacts["dict"].get()
assert artifacts["ordered"].get() == {"b": 1, "a": 2}
assert artifacts["list"].get() == [1, "two", 3.0]
assert artifacts["text"].get() == "some text, é ✓\n", artifacts["text"].get()
assert artifacts["number"].get() == 12
assert artifacts["picture"].get().size == (32, 16)
assert artifacts["pickled"].get() == {1, 2, 3}
assert artifacts["link"].url == "http://127.0.0.1:9/somewhere else.bin", artifacts["link"].url
assert artifacts["watched"].get().shape[0] == 3, artifacts["watched"].get()
copy = Path(artifacts["file"].get_local_copy(force_download=True))
assert copy.read_bytes() == file.read_bytes()
assert artifacts["file"].hash == hashlib.sha256(file.read_bytes()).hexdigest()
assert artifacts["file"].size == file.stat().st_size
assert artifacts["file"].metadata == {"kind": "file"}, artifacts["file"].metadata
whole = Path(artifacts["folder"].get_local_copy())
assert (whole / "below/c d.txt").read_text() == "below/c d.txt", list(whole.rglob("*"))
some = Path(artifacts["pattern"].get_local_copy())
assert sorted(p.name for p in some.rglob("*.txt"))[:2] == ["a.txt", "b.txt"], list(some.rglob("*"))
assert "Größe" in (artifacts["frame"].preview or ""), artifacts["frame"].preview

# A deleted artifact takes its file along. Servers allow that only until the task has ended.
draft = Task.create(project_name="artifacts", task_name="a draft")
draft.upload_artifact("gone", {"x": 1}, wait_on_upload=True)
draft.upload_artifact("kept", {"x": 2}, wait_on_upload=True)
gone = draft.artifacts["gone"].url
assert there(gone)
assert draft.delete_artifacts(["gone"]), "the artifact was not deleted"
assert not there(gone), "the file of a deleted artifact is still there"
assert set(Task.get_task(task_id=draft.id).artifacts) == {"kept"}

# A deleted task takes its files along.
rest = [artifacts[name].url for name in ("frame", "file", "folder", "picture")]
assert all(there(url) for url in rest)
assert read.delete(), "the task was not deleted"
assert not any(there(url) for url in rest), "files of a deleted task are still there"
try:
    Task.get_task(task_id=task.id)
except ValueError:
    print("ok")
else:
    sys.exit("a deleted task was found")
