"""Requests predicted together: the same answers as one by one, and who fails, fails alone."""

import json

import pytest

from answer import LoadError
from frames import batch_tail
from stack import Case, ModelStack, joined, parted, same, shape_of

META = {"sampled": False, "request_id": "r1", "depth": 0, "deadline": None}
CODE = """
    class Preprocess:
        def preprocess(self, body, state, collect_custom_statistics_fn=None):
            return body["rows"]
        def postprocess(self, data, state, collect_custom_statistics_fn=None):
            return {"y": data.tolist() if hasattr(data, "tolist") else data}
"""


def together(endpoint, *bodies, **meta):
    """Answer requests as one batch."""
    cases = [
        endpoint.begin(number, body if isinstance(body, bytes) else json.dumps(body).encode(), "", {**META, **meta})
        for number, body in enumerate(bodies)
    ]
    endpoint.stack.run([case for case in cases if case.answer is None])
    return [case.answer or endpoint.finish(case) for case in cases]


def assert_same_as_alone(endpoint, bodies):
    answers = together(endpoint, *bodies)
    for body, answer in zip(bodies, answers):
        alone = endpoint.handle(json.dumps(body).encode(), "", META)
        assert (answer.status, answer.body) == (alone.status, alone.body), body
    return answers


@pytest.fixture
def data():
    datasets = pytest.importorskip("sklearn.datasets")
    return datasets.make_classification(300, n_features=4, random_state=3)


def bodies_of(rows):
    """One row, several rows, integers, too few cells, no number, nothing: what clients send."""
    rows = rows.tolist()
    return [
        {"rows": rows[:1]},
        {"rows": rows[1:4]},
        {"rows": [[1, 2, 3, 4]]},
        {"rows": [[1, 2, 3]]},
        {"rows": [rows[5]]},
        {"rows": [["a", 1, 2, 3]]},
        {"rows": [[None, 1, 2, 3]]},
        {"rows": []},
        {"rows": rows[10:40]},
        {"rows": [[2, 2, 2, 2], rows[7]]},
        {"rows": rows[5]},
        {"rows": [[1, 2, 3, 4], [1, 2]]},
    ]


SKLEARN = {
    "logistic": ("linear_model", "LogisticRegression", {}),
    "forest": ("ensemble", "RandomForestClassifier", {"n_estimators": 10, "random_state": 0}),
    "trees": ("ensemble", "RandomForestRegressor", {"n_estimators": 10, "random_state": 0}),
    "boosting": ("ensemble", "HistGradientBoostingRegressor", {"max_iter": 10}),
    "neighbours": ("neighbors", "KNeighborsClassifier", {}),
    "machine": ("svm", "SVC", {}),
    "tree": ("tree", "DecisionTreeRegressor", {"random_state": 0}),
    "bayes": ("naive_bayes", "GaussianNB", {}),
}


@pytest.mark.parametrize("name", SKLEARN)
@pytest.mark.parametrize("as_array", [False, True])
def test_sklearn_answers_as_one_by_one(load, tmp_path, data, name, as_array):
    import importlib

    import joblib

    module, kind, options = SKLEARN[name]
    model = getattr(importlib.import_module(f"sklearn.{module}"), kind)(**options)
    joblib.dump(model.fit(*data), tmp_path / "model.pkl")
    code = CODE
    if as_array:
        code = "    import numpy\n" + CODE.replace('body["rows"]', 'numpy.array(body["rows"])')
    endpoint = load(
        code, engine="sklearn", model_path=str(tmp_path / "model.pkl"), extra={"max_batch_size": 64}
    ).endpoint
    answers = assert_same_as_alone(endpoint, bodies_of(data[0]))
    assert [answer.status == 200 for answer in answers[:5]] == [True, True, True, False, True]
    assert endpoint.stack._off is False


def test_linear_regression_answers_as_one_by_one_but_for_the_last_bits(load, tmp_path, data):
    import joblib
    from sklearn.linear_model import Ridge

    joblib.dump(Ridge().fit(*data), tmp_path / "model.pkl")
    endpoint = load(
        CODE, engine="sklearn", model_path=str(tmp_path / "model.pkl"), extra={"max_batch_size": 64}
    ).endpoint
    bodies = [{"rows": [row]} for row in data[0][:50].tolist()]
    for body, answer in zip(bodies, together(endpoint, *bodies)):
        alone = json.loads(endpoint.handle(json.dumps(body).encode(), "", META).body)
        assert json.loads(answer.body)["y"] == pytest.approx(alone["y"], rel=1e-12)


def test_frames_are_stacked_by_their_columns(load, tmp_path, data):
    pytest.importorskip("pandas")
    import joblib
    import pandas
    from sklearn.tree import DecisionTreeClassifier

    table = pandas.DataFrame(data[0], columns=list("abcd"))
    joblib.dump(DecisionTreeClassifier(random_state=0).fit(table, data[1]), tmp_path / "model.pkl")
    code = "    import pandas\n" + CODE.replace('body["rows"]', "pandas.DataFrame(body['rows'])")
    endpoint = load(
        code, engine="sklearn", model_path=str(tmp_path / "model.pkl"), extra={"max_batch_size": 64}
    ).endpoint
    rows = [dict(zip("abcd", row)) for row in data[0][:6].tolist()]
    assert_same_as_alone(
        endpoint, [{"rows": rows[:1]}, {"rows": rows[1:3]}, {"rows": [{"a": 1.0, "e": 2.0}]}, {"rows": rows[3:4]}]
    )


def test_xgboost_answers_as_one_by_one(load, tmp_path, data):
    xgboost = pytest.importorskip("xgboost")
    file = tmp_path / "model.json"
    xgboost.train({"max_depth": 4}, xgboost.DMatrix(data[0], label=data[1]), 20).save_model(file)
    for code in (CODE, "    import xgboost\n" + CODE.replace('body["rows"]', 'xgboost.DMatrix(body["rows"])')):
        loaded = load(code, engine="xgboost", model_path=str(file), extra={"max_batch_size": 64})
        assert_same_as_alone(
            loaded.endpoint, [{"rows": rows} for rows in (data[0][:1].tolist(), data[0][5:9].tolist())]
        )
        assert_same_as_alone(loaded.endpoint, bodies_of(data[0])[:5])


def test_lightgbm_answers_as_one_by_one(load, tmp_path, data):
    lightgbm = pytest.importorskip("lightgbm")
    file = tmp_path / "lgbm_model"
    train = lightgbm.Dataset(data[0], label=data[1])
    lightgbm.train({"objective": "binary", "verbosity": -1}, train, 20).save_model(file)
    endpoint = load(CODE, engine="lightgbm", model_path=str(file), extra={"max_batch_size": 64}).endpoint
    assert_same_as_alone(endpoint, bodies_of(data[0])[:3] + bodies_of(data[0])[4:5])


CUSTOM = """
    class Preprocess:
        def preprocess(self, body, state, collect):
            state["n"] = body["n"]
            if collect is not None:
                collect({"in": body["n"]})
            return body["n"]
        def process_batch(self, data, state, collect):
            if any(n < 0 for n in data):
                raise ValueError("below zero")
            for n, s, c in zip(data, state, collect):
                assert s["n"] == n
                if c is not None:
                    c({"batch": len(data)})
            return [ZeroDivisionError("zero") if n == 0 else n * 2 for n in data]
        def postprocess(self, data, state, collect):
            return {"twice": data, "of": state["n"]}
"""


def test_code_answers_many_at_once(load):
    endpoint = load(CUSTOM, extra={"max_batch_size": 8}, variables=["twice"]).endpoint
    answers = together(endpoint, {"n": 1}, {"n": 2}, {"n": 0}, sampled=True)
    assert [answer.status for answer in answers] == [200, 200, 500]
    assert answers[1].body == b'{"twice":4,"of":2}'
    assert json.loads(answers[0].stats) == {"in": 1, "batch": 3, "twice": 2}
    assert [a.status for a in together(endpoint, {"n": 1}, {"n": -1}, {"n": 3})] == [200, 422, 200]
    assert endpoint.handle(b'{"n": 4}', "", META).body == b'{"twice":8,"of":4}'
    assert endpoint.handle(b'{"n": 0}', "", META).status == 500


def test_code_may_await_and_return_an_array(load):
    numpy = pytest.importorskip("numpy")
    code = """
    import asyncio, numpy
    class Preprocess:
        async def preprocess(self, body, state, collect): return body
        async def process_batch(self, data, state, collect):
            await asyncio.sleep(0)
            return numpy.array(data) + 1
        async def postprocess(self, data, state, collect): return {"y": data}
    """
    endpoint = load(code, extra={"max_batch_size": 8}).endpoint
    assert [json.loads(a.body) for a in together(endpoint, 1, 2)] == [{"y": 2}, {"y": 3}]
    assert numpy is not None


@pytest.mark.parametrize(
    ("returned", "says"),
    [("{}", "a dict of 0"), ("7", "a int"), ("data[1:]", "got 1 requests and returned 0"), ("'ab'", "a str of 2")],
)
def test_code_that_returns_no_result_for_each_is_told(load, returned, says):
    code = f"class Preprocess:\n    def process_batch(self, data, state, collect): return {returned}\n"
    endpoint = load(code, extra={"max_batch_size": 8}).endpoint
    answers = together(endpoint, 1, 2, 3)
    assert [answer.status for answer in answers] == [500] * 3
    assert says in json.loads(answers[0].body)["detail"]


def test_process_batch_without_batching_does_for_process(load):
    code = "class Preprocess:\n    def process_batch(self, data, state, collect): return [len(data)]\n"
    assert load(code).value(5) == 1
    both = code + "    def process(self, data, state, collect): return 'one'\n"
    assert load(both).value(5) == "one"


def test_max_batch_size_without_the_method_has_no_effect_and_says_so(load):
    endpoint = load(
        "class Preprocess:\n    def process(self, data, state, collect): return 1\n", extra={"max_batch_size": 8}
    )
    assert endpoint.endpoint.stack is None
    assert endpoint.value({}) == 1
    assert "max_batch_size=8 has no effect" in endpoint.host.text()
    assert "process_batch" in endpoint.endpoint.warnings[0]


def test_one_row_is_no_batching(load):
    assert load("class Preprocess:\n    pass\n", extra={"max_batch_size": 1}).endpoint.stack is None


def test_batching_of_an_async_endpoint_is_refused(load):
    with pytest.raises(LoadError, match="side by side"):
        load(
            "class Preprocess:\n    async def process(self, *a): return 1\n",
            "custom_async",
            extra={"max_batch_size": 8},
        )


def cases_of(*data):
    cases = []
    for number, one in enumerate(data):
        case = Case(number, META)
        case.data = one
        case.key, case.rows = shape_of(one)
        cases.append(case)
    return cases


def test_rows_that_matter_to_each_other_are_not_stacked():
    numpy = pytest.importorskip("numpy")
    said = []
    for predict in (
        lambda rows, *_: numpy.array(rows).sum(axis=1) - numpy.mean(rows),
        lambda rows, *_: [len(rows)] * 3,
    ):
        stack = ModelStack(predict, lambda level, text: said.append(text))
        cases = cases_of([[1.0]], [[2.0]])
        expected = [predict(case.data) for case in cases]
        stack.run(cases)
        assert [list(case.data) for case in cases] == [list(one) for one in expected]
        assert stack._off
    assert "others are beside it" in said[0]
    assert "predict of 2 rows returned a list of 3" in said[1]


def test_one_bad_row_costs_few_predictions():
    calls = []

    def predict(rows, *_):
        calls.append(len(rows))
        if [13.0] in rows:
            raise ValueError("13")
        return [row[0] for row in rows]

    cases = cases_of(*([[float(n)]] for n in range(64)))
    ModelStack(predict, print).run(cases)
    assert [case.number for case in cases if case.error] == [13]
    assert [case.data for case in cases if not case.error] == [[float(n)] for n in range(64) if n != 13]
    assert len(calls) < 20


def test_what_fits_together():
    numpy = pytest.importorskip("numpy")
    keys = {name: shape_of(value) for name, value in {
        "floats": [[1.0, 2.0]], "others": [[3.0, 4.0], [5.0, 6.0]], "mixed": [[1, 2.0]], "wide": [[1.0, 2.0, 3.0]],
        "ragged": [[1.0], [1.0, 2.0]], "empty": [], "text": ["a", "b"], "object": {"a": 1}, "numbers": [1.0, 2.0],
        "array": numpy.zeros((3, 2)), "single": numpy.zeros((3, 2), dtype="float32"), "nothing": numpy.zeros((0, 2)),
        "scalar": numpy.array(1.0), "masked": numpy.ma.array([[1.0], [2.0]]),
    }.items()}  # fmt: skip
    assert keys["floats"][0] == keys["others"][0] is not None
    assert len({keys[name][0] for name in ("floats", "mixed", "wide", "text", "numbers", "array", "single")}) == 7
    assert {name for name, (key, _) in keys.items() if key is None} == {
        "ragged", "empty", "object", "nothing", "scalar", "masked",
    }  # fmt: skip
    assert [keys[name][1] for name in ("floats", "others", "text", "array", "nothing", "masked")] == [1, 2, 2, 3, 1, 2]


def test_stacked_rows_come_apart_as_they_went_in():
    numpy = pytest.importorskip("numpy")
    cases = cases_of(numpy.ones((1, 2)), numpy.zeros((2, 2)))
    assert joined(cases).shape == (3, 2)
    assert [len(part) for part in parted(numpy.arange(3), [1, 2])] == [1, 2]
    for value in (numpy.arange(4), numpy.array(1), "abc", {"a": 1, "b": 2, "c": 3}):
        assert parted(value, [1, 2]) is None
    assert same(numpy.array([1.0]), numpy.array([1.0 + 1e-12]))
    assert not same(numpy.array([1]), numpy.array([2]))
    assert not same(numpy.array([1]), numpy.array([[1]]))
    assert not same([1], numpy.array([1]))


def test_the_end_of_a_batch_has_a_fixed_size():
    assert len(batch_tail(1, 2, 3.5)) == 12
    assert batch_tail(1, 2, 1e9)[8:] == b"\xff" * 4
