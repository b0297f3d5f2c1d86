"""Requests with tensors: what user code and models get, and what comes back."""

import asyncio
import datetime
import json
import pathlib
import struct
import sys

import pytest

import frames
import tensors
from tensorinput import value_of
from tensoroutput import encode_value, tensors_of

META = {"sampled": False, "request_id": "r1", "depth": 0, "deadline": None, "client": None}
TYPES = {
    "BOOL": ("|b1", "?"),
    "UINT8": ("|u1", "B"),
    "INT8": ("|i1", "b"),
    "UINT16": ("<u2", "H"),
    "INT16": ("<i2", "h"),
    "UINT32": ("<u4", "I"),
    "INT32": ("<i4", "i"),
    "UINT64": ("<u8", "Q"),
    "INT64": ("<i8", "q"),
    "FP16": ("<f2", "e"),
    "FP32": ("<f4", "f"),
    "FP64": ("<f8", "d"),
}
NAN = float("nan")
MLSERVER = json.loads(pathlib.Path(__file__).with_name("testdata").joinpath("mlserver.json").read_text())


def tensor(name, datatype, shape, data, content_type=""):
    """Return a tensor as Go sends it."""
    if datatype == "BYTES":
        cells = [cell.encode() if isinstance(cell, str) else cell for cell in data]
        return tensors.Out(name, "|O", content_type, shape, tensors.elements(cells))
    if datatype == "BF16":
        return tensors.Out(name, "bf16", content_type, shape, struct.pack(f"<{len(data)}H", *data))
    dtype, code = TYPES[datatype]
    cells = [NAN if cell is None else cell for cell in data]
    return tensors.Out(name, dtype, content_type, shape, struct.pack(f"<{len(cells)}{code}", *cells))


def asked(*outs, whole="", wanted=()):
    """Return the body of a request."""
    body = tensors.pack(tensors.DICT, list(outs), whole)
    names = b"".join(struct.pack("<H", len(name)) + name.encode() for name in wanted)
    cut = 6 + len(whole)
    return body[:4] + struct.pack("<H", len(wanted)) + body[6:cut] + names + body[cut:]


def ask(endpoint, *outs, whole="", wanted=(), **meta):
    body = asked(*outs, whole=whole, wanted=wanted)
    endpoint = getattr(endpoint, "endpoint", endpoint)
    if endpoint.is_async:
        return asyncio.run(endpoint.handle_tensors_async(body, "", {**META, **meta}))
    return endpoint.handle_tensors(body, "", {**META, **meta})


def answered(answer):
    """Return the arrays of an answer by their names, and their content types."""
    assert answer.status == 200, answer.body
    assert answer.content_type == tensors.TENSORS
    got = tensors.unpack(answer.body)
    return {t.name: t.array.tolist() for t in got.list}, {t.name: t.content_type for t in got.list if t.content_type}


def refused(answer):
    assert answer.status == 422, answer.body
    return json.loads(answer.body)["detail"]


def sent(request):
    """Return the body of a request in the JSON of the protocol."""
    outs = [
        tensor(t["name"], t["datatype"], t["shape"], t["data"], (t.get("parameters") or {}).get("content_type", ""))
        for t in request["inputs"]
    ]
    return asked(*outs, whole=(request.get("parameters") or {}).get("content_type", ""))


def told(value):
    """Describe a value as make_mlserver.py does."""
    if hasattr(value, "iloc"):
        return {"frame": {name: [told(cell) for cell in value[name].tolist()] for name in value}}
    if hasattr(value, "dtype"):
        return {
            "array": str(value.dtype),
            "shape": list(value.shape),
            "cells": [told(c) for c in value.ravel().tolist()],
        }
    if isinstance(value, list):
        return [told(each) for each in value]
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, datetime.datetime):
        return {"datetime": value.isoformat()}
    if isinstance(value, float) and value != value:
        return {"nan": True}
    return value


@pytest.mark.parametrize("case", MLSERVER, ids=[case["name"] for case in MLSERVER])
def test_requests_of_mlservers_codecs_arrive_as_there(load, case):
    pytest.importorskip("numpy")
    pytest.importorskip("pandas")
    loaded = load(
        """
        class Preprocess:
            def preprocess(self, body, state, collect_custom_statistics_fn=None):
                Preprocess.got = body
                return 1
        """
    )
    answer = loaded.endpoint.handle_tensors(sent(case["request"]), "", META)
    assert answer.status == 200, answer.body
    got = sys.modules["Preprocess"].Preprocess.got
    if "whole" in case:
        assert told(got) == case["whole"]
        return
    for name, wanted in case["inputs"].items():
        value = got[name]
        if isinstance(wanted, list):  # MLServer has lists where an array has a shape
            assert value.shape == tuple(case["request"]["inputs"][0]["shape"])
            value = value.ravel().tolist()
        assert told(value) == wanted


@pytest.fixture
def echo(process):
    return process("return data")


def test_content_types_that_do_not_fit_are_refused(echo):
    numpy = pytest.importorskip("numpy")
    pytest.importorskip("pandas")
    two = tensor("a", "INT8", [1], [1]), tensor("b", "INT8", [1], [1])
    assert "is for one tensor, and it has 2" in refused(ask(echo, *two, whole="np"))
    assert "has to be a BYTES tensor" in refused(ask(echo, two[0], whole="str"))
    assert "has the shape [2, 2]" in refused(ask(echo, tensor("a", "INT8", [2, 2], [1, 2, 3, 4]), whole="pd"))
    uneven = tensor("a", "INT8", [1], [1]), tensor("b", "INT8", [2], [1, 2])
    assert "different numbers of rows: 'a' 1, 'b' 2" in refused(ask(echo, *uneven, whole="pd"))
    for kind, what in (("str", "not UTF-8"), ("datetime", "no date and time"), ("hg_json", "not JSON")):
        bad = b"\xff" if kind == "str" else b"{x"
        assert what in refused(ask(echo, tensor("a", "BYTES", [1], [bad], kind)))
    assert refused(ask(echo, tensor("a", "BYTES", [1], [b"\xff"]), whole="pd")).startswith("the input 'a'")
    values, _ = answered(ask(echo, tensor("a", "BYTES", [1], ["x"], "unheard-of"), whole="unheard-of"))
    assert values == {"a": [b"x"]}
    answer = ask(echo, tensor("a", "BYTES", [1], ["2024-02-29T12:30:00Z"], "datetime"))
    assert answered(answer) == ({"a": [b"2024-02-29T12:30:00+00:00"]}, {"a": "datetime"})
    assert numpy


def test_a_table_comes_back_as_columns(echo):
    pytest.importorskip("pandas")
    columns = tensor("a", "FP32", [2, 1], [1, None]), tensor("b", "BYTES", [2, 1], ["x", "y"])
    answer = ask(echo, *columns, tensor("c", "INT64", [2], [1, 2]), whole="pd")
    got = tensors.unpack(answer.body)
    assert got.whole == "pd"
    assert [(t.name, t.dtype, t.content_type, t.shape) for t in got.list] == [
        ("a", "<f4", "", [2, 1]),
        ("b", "|O", "str", [2, 1]),
        ("c", "<i8", "", [2, 1]),
    ]


def test_bfloat16_is_widened(echo):
    pytest.importorskip("numpy")
    values, _ = answered(ask(echo, tensor("a", "BF16", [2], [0x3F80, 0xC020])))
    assert values == {"a": [1.0, -2.5]}


def test_without_numpy_user_code_gets_nested_lists(load, monkeypatch):
    monkeypatch.setitem(sys.modules, "numpy", None)
    loaded = load(
        """
        class Preprocess:
            def process(self, data, state, collect_custom_statistics_fn=None):
                Preprocess.got = data
                return {**data, "half": [[0.5], [1]], "why": {"a": 1}}
        """
    )
    outs = [
        tensor("i", "INT16", [2, 2], [1, -2, 3, 4]),
        tensor("f", "FP16", [1], [0.5]),
        tensor("b", "BOOL", [2], [True, False]),
        tensor("t", "BYTES", [2, 1], ["x", "y"], "str"),
        tensor("raw", "BYTES", [1], [b"\xff"]),
        tensor("none", "FP32", [2, 0], []),
        tensor("bf", "BF16", [2], [0x3F80, 0xC020]),
        tensor("one", "FP64", [], [4]),
    ]
    answer = ask(loaded, *outs)
    assert sys.modules["Preprocess"].Preprocess.got == {
        "i": [[1, -2], [3, 4]],
        "f": [0.5],
        "b": [True, False],
        "t": [["x"], ["y"]],
        "raw": [b"\xff"],
        "none": [[], []],
        "bf": [1.0, -2.5],
        "one": 4.0,
    }
    got = tensors.unpack(answer.body)
    assert {t.name: (t.dtype, t.shape, t.array) for t in got.list} == {
        "i": ("<i8", [2, 2], [[1, -2], [3, 4]]),
        "f": ("<f8", [1], [0.5]),
        "b": ("|b1", [2], [True, False]),
        "t": ("|O", [2, 1], [[b"x"], [b"y"]]),
        "raw": ("|O", [1], [b"\xff"]),
        "none": ("<f8", [2, 0], [[], []]),
        "bf": ("<f8", [2], [1.0, -2.5]),
        "one": ("<f8", [1], [4.0]),
        "half": ("<f8", [2, 1], [[0.5], [1.0]]),
        "why": ("|O", [1], [b'{"a":1}']),
    }


def test_tensors_in_shared_memory_are_copied_once_and_writable(echo, tmp_path):
    numpy = pytest.importorskip("numpy")
    outs = [
        tensor("f", "FP64", [2], [1.5, 2.5]),
        tensor("b", "BOOL", [1], [True]),
        tensor("t", "BYTES", [1], ["x"]),
        tensor("none", "FP32", [0, 3], []),
    ]
    memory = b"\1"
    places = []
    for out in outs:
        places.append(len(memory))
        memory += bytes(out.data) + b"\7"
    file = tmp_path / "memory"
    file.write_bytes(memory)
    whole = tensors.pack(tensors.DICT, outs)
    head = whole[: len(whole) - sum(len(out.data) for out in outs)] + struct.pack(f"<{len(outs)}Q", *places)
    with file.open("rb") as opened:
        got = tensors.unpack(frames.Lent(head, opened.fileno()))
        arrays = {t.name: t.array for t in got.list}
        assert arrays["f"].tolist() == [1.5, 2.5]
        assert arrays["b"].tolist() == [True]
        assert arrays["t"].tolist() == [b"x"]
        assert arrays["none"].shape == (0, 3)
        assert all(array.flags.writeable and array.flags.aligned for array in arrays.values())
        assert value_of(got, arrays) is arrays
        file.write_bytes(b"")
        with pytest.raises(ValueError, match="shared memory are missing"):
            tensors.unpack(frames.Lent(head, opened.fileno()))
    assert numpy


def test_values_for_a_computation_elsewhere_that_are_no_arrays_are_json():
    numpy = pytest.importorskip("numpy")
    assert encode_value([[1, NAN]]) == ("application/json", b"[[1,NaN]]")
    assert encode_value({"a": numpy.ones(1), "b": [{}]})[0] == "application/json"
    assert encode_value([[1], numpy.ones(1)])[0] == "application/json"
    kind, body = encode_value({"a": numpy.ones(1), "b": ["x"]})
    assert kind == tensors.TENSORS
    assert [(t.name, t.dtype) for t in tensors.unpack(body).list] == [("a", "<f8"), ("b", "|O")]


def test_lists_keep_their_sort():
    def kinds(value):
        return [(out.name, out.dtype, out.content_type, tuple(out.shape)) for out in tensors_of(value)[0]]

    assert kinds([1, 2**64]) == [("output-0", "|O", "hg_json", (1,))]
    assert kinds([True, 1]) == [("output-0", "|O", "hg_json", (1,))]
    assert kinds([1.5, 10**400]) == [("output-0", "|O", "hg_json", (1,))]
    assert kinds([[[1]]] * 3) == [("output-0", "<i8", "", (3, 1, 1))]
    deep = 1
    for _ in range(300):
        deep = [deep]
    assert kinds(deep) == [("output-0", "|O", "hg_json", (1,))]


# Models


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    joblib, numpy = pytest.importorskip("joblib"), pytest.importorskip("numpy")
    pandas = pytest.importorskip("pandas")
    xgboost, lightgbm = pytest.importorskip("xgboost"), pytest.importorskip("lightgbm")
    pytest.importorskip("sklearn")
    from sklearn.compose import make_column_transformer
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    random, folder = numpy.random.default_rng(5), tmp_path_factory.mktemp("models")
    table = pandas.DataFrame(
        {"kind": random.choice(["a", "b", "c"], 300).astype(object), "size": random.normal(size=300)}
    )
    labels = numpy.where((table["kind"] == "a") ^ (table["size"] > 0), "yes", "no")
    typed = table.assign(kind=table["kind"].astype("category"))
    rows = random.normal(size=(300, 3))
    made = {
        "pipeline.pkl": make_pipeline(
            make_column_transformer((OneHotEncoder(), ["kind"]), remainder="passthrough"), LogisticRegression()
        ).fit(table, labels),
        "plain.pkl": LogisticRegression().fit(rows, rows[:, 0] > 0),
        "text.pkl": make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(["good", "bad", "good day"], [1, 0, 1]),
        "light.pkl": lightgbm.LGBMClassifier(n_estimators=5, verbosity=-1).fit(typed, labels == "yes"),
    }
    for name, model in made.items():
        joblib.dump(model, folder / name)
    made["trees.ubj"] = xgboost.XGBClassifier(n_estimators=5, enable_categorical=True).fit(typed, labels == "yes")
    made["trees.ubj"].save_model(folder / "trees.ubj")

    class Made:
        path, table_of = folder, staticmethod(lambda kinds, sizes: pandas.DataFrame({"kind": kinds, "size": sizes}))
        typed_of = staticmethod(
            lambda kinds, sizes: pandas.DataFrame({"kind": pandas.Categorical(kinds, ["a", "b", "c"]), "size": sizes})
        )
        get = made

    return Made


COLUMNS = (tensor("size", "FP64", [3, 1], [0.5, -1.5, 2]), tensor("kind", "BYTES", [3], ["a", "c", "b"]))
CELLS = (["a", "c", "b"], [0.5, -1.5, 2.0])


def test_named_tensors_are_the_columns_of_a_model(load, models):
    loaded = load(engine="sklearn", model_path=str(models.path / "pipeline.pkl"))
    model = models.get["pipeline.pkl"]
    want = model.predict(models.table_of(*CELLS))
    for whole in ("", "pd"):
        answer = ask(loaded, *COLUMNS, whole=whole)
        assert answered(answer) == ({"predict": [label.encode() for label in want]}, {"predict": "str"})
    proba = model.predict_proba(models.table_of(*CELLS))
    for wanted in (["predict_proba"], ["predict", "predict_proba"]):
        values, _ = answered(ask(loaded, *COLUMNS, wanted=wanted))
        assert list(values) == wanted
        assert values["predict_proba"] == proba.tolist()
    assert list(answered(ask(loaded, *COLUMNS, wanted=["transform"]))[0]) == ["predict"]
    named = load(
        engine="sklearn",
        model_path=str(models.path / "pipeline.pkl"),
        extra={"method": "predict_proba"},
        fields={"output_name": ["p"]},
    )
    assert answered(ask(named, *COLUMNS))[0] == {"p": proba.tolist()}


@pytest.mark.parametrize(("engine", "file"), [("xgboost", "trees.ubj"), ("lightgbm", "light.pkl")])
def test_categories_and_missing_values_are_those_of_training(load, models, engine, file):
    loaded = load(
        engine="sklearn" if file.endswith("pkl") else engine,
        model_path=str(models.path / file),
        extra={"method": "predict_proba"},
    )
    answer = ask(loaded, tensor("size", "FP64", [3], [0.5, None, 2]), COLUMNS[1])
    want = models.get[file].predict_proba(models.typed_of(CELLS[0], [0.5, NAN, 2.0]))
    assert answered(answer)[0]["predict_proba"] == want.tolist()
    missing = tensor("kind", "BYTES", [3], ["null", '"c"', '"b"'], "pd_json")
    answer = ask(loaded, COLUMNS[0], missing)
    want = models.get[file].predict_proba(models.typed_of([None, "c", "b"], CELLS[1]))
    assert answered(answer)[0]["predict_proba"] == want.tolist()


def test_tensors_that_are_no_input_of_the_model_are_refused(load, models):
    pipeline = load(engine="sklearn", model_path=str(models.path / "pipeline.pkl"))
    text = refused(ask(pipeline, COLUMNS[0], tensor("kid", "BYTES", [3], ["a", "b", "c"])))
    assert text == (
        "the request has no 'kind' and has 'kid' (did you mean 'kind'?), which the model does not know; "
        "the model's columns are 'kind', 'size'"
    )
    assert "different numbers of rows" in refused(ask(pipeline, COLUMNS[0], tensor("kind", "BYTES", [1], ["a"])))
    assert "has the shape [3, 2]" in refused(ask(pipeline, COLUMNS[0], tensor("kind", "INT8", [3, 2], [1] * 6)))
    plain = load(engine="sklearn", model_path=str(models.path / "plain.pkl"))
    assert "takes one tensor of rows, [n, m], and the request has 2" in refused(ask(plain, *COLUMNS))
    assert "features" in refused(ask(plain, tensor("x", "FP32", [1, 2], [1, 2])))
    trees = load(engine="xgboost", model_path=str(models.path / "trees.ubj"))
    strange = refused(ask(trees, COLUMNS[0], tensor("kind", "BYTES", [3], ["a", "z", "b"])))
    assert "'z'" in strange
    assert "training did not have" in strange


def test_one_tensor_is_the_rows_of_a_model(load, models):
    loaded = load(engine="sklearn", model_path=str(models.path / "plain.pkl"))
    rows = [[1.5, 0, 1], [-2, 3, 0.25]]
    want = models.get["plain.pkl"].predict(rows)
    for datatype in ("FP32", "FP64"):
        flat = [cell for row in rows for cell in row]
        values, _ = answered(ask(loaded, tensor("input-0", datatype, [2, 3], flat)))
        assert values == {"predict": want.tolist()}
    texts = load(engine="sklearn", model_path=str(models.path / "text.pkl"))
    want = models.get["text.pkl"].predict(["bad day", "good"]).tolist()
    for shape, kind, whole in (([2], "", ""), ([2, 1], "str", ""), ([2, 1], "str", "str")):
        values, _ = answered(ask(texts, tensor("t", "BYTES", shape, ["bad day", "good"], kind), whole=whole))
        assert values == {"predict": want}


def test_one_tensor_of_text_is_the_rows_of_a_table(load, models, tmp_path):
    joblib = pytest.importorskip("joblib")
    from sklearn.compose import make_column_transformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder
    from sklearn.tree import DecisionTreeClassifier

    table, labels = models.table_of(["a", "b", "a"], ["x", "x", "y"]), [0, 1, 2]
    cells = [cell for row in table.to_numpy().tolist() for cell in row]
    for steps in (
        (make_column_transformer((OneHotEncoder(), ["kind", "size"])), DecisionTreeClassifier()),
        (OneHotEncoder(), DecisionTreeClassifier()),
    ):
        joblib.dump(make_pipeline(*steps).fit(table, labels), tmp_path / "texts.pkl")
        loaded = load(engine="sklearn", model_path=str(tmp_path / "texts.pkl"))
        for kind in ("", "str"):
            assert answered(ask(loaded, tensor("rows", "BYTES", [3, 2], cells, kind)))[0] == {"predict": labels}
        refused(ask(loaded, tensor("rows", "BYTES", [3], ["a", "b", "c"])))


def test_results_of_models_get_the_variables_of_their_names(load, models):
    loaded = load(
        engine="sklearn", model_path=str(models.path / "pipeline.pkl"), variables=["kind", "size", "predict", "other"]
    )
    answer = ask(loaded, *COLUMNS, sampled=True)
    label = models.get["pipeline.pkl"].predict(models.table_of(*CELLS)).tolist()
    want = {"kind": CELLS[0], "size": [[cell] for cell in CELLS[1]], "predict": label}
    assert json.loads(answer.stats) == want


# Batches


def test_tensors_are_predicted_together_but_never_with_json(load, models, monkeypatch):
    loaded = load(engine="sklearn", model_path=str(models.path / "plain.pkl"), extra={"max_batch_size": 16})
    endpoint, sizes = loaded.endpoint, []
    predict = endpoint.stack._predict

    def counted(data, state, collect):
        sizes.append(len(data))
        return predict(data, state, collect)

    monkeypatch.setattr(endpoint.stack, "_predict", counted)
    monkeypatch.setattr(endpoint.stack, "_checks", 0)
    numpy = pytest.importorskip("numpy")
    rows = numpy.random.default_rng(1).normal(size=(8, 3))
    cases = [
        endpoint.begin_tensors(n, asked(tensor("x", "FP64", [1, 3], row.tolist())), "", META)
        for n, row in enumerate(rows[:4])
    ]
    cases.append(endpoint.begin_tensors(4, asked(tensor("x", "FP32", [1, 3], rows[4].tolist())), "", META))
    cases += [endpoint.begin(n, json.dumps([rows[n].tolist()]).encode(), "", META) for n in (5, 6)]
    wanted = asked(tensor("x", "FP64", [1, 3], rows[7].tolist()), wanted=["predict_proba"])
    cases.append(endpoint.begin_tensors(7, wanted, "", META))
    endpoint.stack.run(cases)
    assert sorted(sizes) == [1, 2, 4]
    model = models.get["plain.pkl"]
    answers = [endpoint.finish(case) for case in cases]
    for answer, row in zip(answers[:5], rows):
        assert answered(answer)[0] == {"predict": model.predict([row]).tolist()}
    assert [json.loads(answer.body) for answer in answers[5:7]] == [[bool(p)] for p in model.predict(rows[5:7])]
    assert answered(answers[7])[0] == {"predict_proba": model.predict_proba(rows[7:]).tolist()}


def test_process_batch_gets_requests_of_one_sort(load):
    pytest.importorskip("numpy")
    loaded = load(
        """
        class Preprocess:
            def process_batch(self, data, state, collect_custom_statistics_fn=None):
                assert len({type(each["x"]) for each in data}) == 1
                return [{"n": len(data), "x": each["x"]} for each in data]
        """,
        extra={"max_batch_size": 16},
    )
    endpoint = loaded.endpoint
    cases = [endpoint.begin_tensors(n, asked(tensor("x", "INT8", [2, 1], [n, n])), "", META) for n in range(3)]
    cases += [endpoint.begin(n, b'{"x":[1]}', "", META) for n in (3, 4)]
    assert [case.rows for case in cases] == [2, 2, 2, 1, 1]
    endpoint.stack.run(cases)
    answers = [endpoint.finish(case) for case in cases]
    assert [answered(answer)[0] for answer in answers[:3]] == [{"n": [3], "x": [[n], [n]]} for n in range(3)]
    assert [json.loads(answer.body) for answer in answers[3:]] == [{"n": 2, "x": [1]}] * 2


# Async


def test_coroutines_take_and_give_tensors(load):
    pytest.importorskip("numpy")
    loaded = load(
        """
        import asyncio
        class Preprocess:
            async def preprocess(self, body, state, collect_custom_statistics_fn=None):
                await asyncio.sleep(0)
                return body["x"] * 2
            async def process(self, data, state, collect_custom_statistics_fn=None):
                if data[0] > 100:
                    raise ValueError("too much")
                async def parts():
                    for value in data.tolist():
                        yield value
                return parts()
        """,
        engine="custom_async",
    )
    assert answered(ask(loaded, tensor("x", "INT16", [2], [1, 2])))[0] == {"output-0": [2, 4]}
    assert "too much" in refused(ask(loaded, tensor("x", "INT16", [1], [90])))
