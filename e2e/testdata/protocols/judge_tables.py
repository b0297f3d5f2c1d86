"""Asks scikit-learn models without code through NVIDIA's client. argv: address, folder of train_tables.py."""

import json
import pathlib
import sys

import numpy
import tritonclient.http as http
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

client = http.InferenceServerClient(sys.argv[1])
known = json.loads((pathlib.Path(sys.argv[2]) / "answers.json").read_text())
rows = numpy.array(known["rows"])


def ask(model, **arrays):
    tensors = []
    for name, array in arrays.items():
        tensor = http.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
        tensors.append(tensor.set_data_from_numpy(array))
    return client.infer(model, tensors)


metadata = client.get_model_metadata("forest")
assert [tensor["name"] for tensor in metadata["inputs"]] == known["columns"], metadata
(output,) = metadata["outputs"]
for number in (1, len(rows)):
    columns = {name: rows[:number, at] for at, name in enumerate(known["columns"])}
    turned = dict(reversed(columns.items()))
    for inputs in (columns, turned, {"all": rows[:number]}):
        got = ask("forest", **inputs).as_numpy(output["name"])
        assert got.reshape(-1).tolist() == known["forest"][:number], (inputs, got)
    got = ask("line", x=rows[:number]).as_numpy("predict_proba")
    assert numpy.array_equal(got, numpy.array(known["line"])[:number]), got
for inputs, words in (
    ({"age": rows[:, 0], "incom": rows[:, 1], "debt": rows[:, 2]}, ("'incom'", "'income'")),
    ({"all": rows[:, :2]}, ("'age'",)),
):
    try:
        ask("forest", **inputs)
    except InferenceServerException as error:
        assert error.status() in ("400", "422") and all(word in error.message() for word in words), error
    else:
        raise AssertionError(f"{list(inputs)} are accepted")
print("passed")
