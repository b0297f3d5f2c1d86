"""Makes a dataset and a newer version of it, and gets both back. Ends with "ok"."""

from pathlib import Path

from clearml import Dataset

folder = Path("data")
(folder / "below").mkdir(parents=True)
for name in ("a.csv", "b é.csv", "below/c.csv"):
    (folder / name).write_text(name)


def files_of(dataset: Dataset) -> dict[str, str]:
    copy = Path(dataset.get_local_copy())
    return {str(path.relative_to(copy)): path.read_text() for path in copy.rglob("*") if path.is_file()}


first = Dataset.create(dataset_name="rows", dataset_project="datasets", dataset_version="1.0.0")
assert first.add_files(folder) == 3
first.add_tags(["fresh"])
first.set_metadata({"rows": 3}, metadata_name="facts")
first.upload(show_progress=False)
assert first.finalize()
second = Dataset.create(
    dataset_name="rows", dataset_project="datasets", parent_datasets=[first.id], dataset_version="1.1.0"
)
second.remove_files("a.csv")
(folder / "d.csv").write_text("d")
second.sync_folder(folder)
second.upload(show_progress=False)
assert second.finalize()

newest = Dataset.get(dataset_project="datasets", dataset_name="rows")
assert newest.id == second.id, (newest.id, second.id)
old = Dataset.get(dataset_project="datasets", dataset_name="rows", dataset_version="1.0.0")
assert old.id == first.id
assert files_of(old) == {name: name for name in ("a.csv", "b é.csv", "below/c.csv")}, files_of(old)
wanted = {"d.csv": "d", **{name: name for name in ("a.csv", "b é.csv", "below/c.csv")}}
assert files_of(newest) == wanted, files_of(newest)
assert old.get_metadata("facts") == {"rows": 3}, old.get_metadata("facts")
listed = Dataset.list_datasets(dataset_project="datasets", only_completed=True)
assert {entry["id"] for entry in listed} == {first.id, second.id}, listed
Dataset.delete(dataset_id=second.id, force=True)
rest = [entry["id"] for entry in Dataset.list_datasets(dataset_project="datasets")]
assert rest == [first.id], (rest, first.id, second.id)
print("ok")
