"""Code that predicts for one request: the same answers as one by one, fewer calls of the model."""

import contextlib
import json
import threading
import time

import pytest
from test_batches import META, assert_same_as_alone, bodies_of, together

import predictcalls
from answer import LoadError

MODEL = """
    import threading

    class Model:
        def __init__(self):
            self.calls = []
        def predict(self, rows):
            self.calls.append((len(rows), threading.current_thread() is threading.main_thread()))
            if any(row[0] == 13 for row in rows):
                raise ValueError("no 13")
            return [sum(row) for row in rows]
        def predict_proba(self, rows, scale=1):
            self.calls.append((len(rows), None))
            return [row[0] * scale for row in rows]
"""
CODE = (
    MODEL
    + """
    class Preprocess:
        def load(self, path):
            self._model = Model()
        def process(self, data, state, collect=None):
            if data["x"] == "refuse":
                raise ValueError("refused")
            state["x"] = data["x"]
            y = self._model.predict([[data["x"], 1]])[0]
            if collect:
                collect({"y": y})
            if data.get("again"):
                y += self._model.predict_proba([[y]])[0] + self._model.predict_proba([[y]], scale=3)[0]
            return [state["x"], y]
"""
)


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """Wait for a request as long as a busy machine may need; those who test it wait for less."""
    monkeypatch.setattr(predictcalls, "PATIENCE", 60.0)


def stacked(load, code, rows=64, **spec):
    """Load an endpoint whose model takes so long, as far as it knows, that its calls are always stacked."""
    endpoint = load(code, extra={"max_batch_size": rows}, **spec).endpoint
    endpoint.stack.costs.alone = 1e9
    return endpoint


def test_calls_of_one_model_are_made_together(load, host):
    endpoint = stacked(load, CODE)
    answers = together(endpoint, *({"x": x} for x in (1, 2, "refuse", 4)), sampled=True)
    assert [json.loads(a.body) for a in answers if a.status == 200] == [[1, 2], [2, 3], [4, 5]]
    assert (answers[2].status, json.loads(answers[2].body)["detail"]) == (
        422,
        "Error [<class 'ValueError'>] processing request: refused",
    )
    assert json.loads(answers[3].stats) == {"y": 5}
    # The last one is asked alone as well: may rows be put together at all?
    assert endpoint.instance._model.calls == [(3, True), (1, True)]
    assert [number for number in host.entered if number] == [1, 2, 3]
    assert host.entered.count(0) >= 4
    endpoint.unload()


def test_all_calls_that_a_request_makes_can_be_stacked(load):
    endpoint = stacked(load, CODE)
    answers = together(endpoint, {"x": 1, "again": 1}, {"x": 2}, {"x": 3, "again": 1})
    assert [json.loads(a.body) for a in answers] == [[1, 10], [2, 3], [3, 20]]
    sizes = [size for size, _ in endpoint.instance._model.calls]
    assert (sizes.count(3), sizes.count(2)) == (1, 1)  # one of predict, one of predict_proba; with scale, alone
    endpoint.unload()


def test_a_bad_row_fails_alone(load, host):
    endpoint = stacked(load, CODE)
    answers = together(endpoint, *({"x": x} for x in (11, 12, 13, 14)))
    assert [a.status for a in answers] == [200, 200, 422, 200]
    assert "no 13" in json.loads(answers[2].body)["detail"]
    assert "During handling" not in host.text()
    endpoint.unload()


def test_no_call_has_more_rows_than_allowed(load):
    code = CODE.replace('[[data["x"], 1]]', '[[data["x"], 1]] * data.get("rows", 1)')
    endpoint = stacked(load, code, rows=4)
    answers = together(endpoint, *({"x": x, "rows": rows} for x, rows in enumerate((1, 2, 3, 9, 1, 1))))
    assert [json.loads(a.body)[1] for a in answers] == [1, 2, 3, 4, 5, 6]
    assert sorted(size for size, _ in endpoint.instance._model.calls if size > 1) == [2, 2, 3, 3, 9]
    endpoint.unload()


def test_more_requests_than_threads(load, monkeypatch):
    monkeypatch.setattr(predictcalls, "MOST", 3)
    endpoint = stacked(load, CODE)
    assert [json.loads(a.body)[1] for a in together(endpoint, *({"x": x} for x in range(8)))] == list(range(1, 9))
    assert [size for size, _ in endpoint.instance._model.calls if size > 1] == [3, 3, 2]
    endpoint.unload()


def test_threads_end_with_the_endpoint(load):
    before = set(threading.enumerate())
    endpoint = stacked(load, CODE)
    together(endpoint, {"x": 1}, {"x": 2})
    together(endpoint, {"x": 1}, {"x": 2}, {"x": 3})
    threads = set(threading.enumerate()) - before
    assert [thread.name for thread in threads] == ["request"] * 3
    endpoint.unload()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


def test_a_request_alone_stays_on_the_main_thread(load):
    endpoint = stacked(
        load, CODE.replace("return [state", "assert threading.current_thread().name != 'request'; return [state")
    )
    assert json.loads(together(endpoint, {"x": 1})[0].body) == [1, 2]
    assert json.loads(endpoint.handle(b'{"x":1}', "", META).body) == [1, 2]


def test_a_table_that_user_code_fills_anew_for_each_request_is_copied(load):
    numpy = pytest.importorskip("numpy")
    code = """
    import numpy
    class Model:
        def predict(self, rows): return [float(row[0]) for row in rows]
    class Preprocess:
        def load(self, path):
            self.row, self.table, self.models = [0.0], numpy.zeros((1, 1)), {"a": Model()}
        def process(self, data, state, collect=None):
            self.row[0] = self.table[0, 0] = data
            return self.models["a"].predict(self.table if data > 3 else [self.row])
    """
    endpoint = stacked(load, code)
    assert [json.loads(a.body) for a in together(endpoint, *range(8))] == [[n] for n in range(8)]
    assert numpy is not None
    endpoint.unload()


def test_what_user_code_keeps_in_an_attribute_is_not_mixed_up(load, host):
    code = CODE.replace('state["x"] = data["x"]', 'self.x = data["x"]').replace('[state["x"], y]', "[self.x, y]")
    endpoint = stacked(load, code)
    for _ in range(2):
        answers = together(endpoint, *({"x": x} for x in range(4)))
        assert [json.loads(a.body) for a in answers] == [[x, x + 1] for x in range(4)]
    assert "process sets attributes of the Preprocess (x)" in host.text()
    endpoint.unload()


def test_what_the_first_request_makes_is_no_reason_to_stop(load, host):
    code = CODE.replace('state["x"] = data["x"]', 'state["x"] = data["x"]; vars(self).setdefault("cache", {})')
    endpoint = stacked(load, code)
    together(endpoint, {"x": 1}, {"x": 2}, {"x": 3})
    assert endpoint.instance._model.calls == [(1, False), (2, True), (1, True)]
    assert not endpoint.stack._off
    endpoint.unload()


@pytest.mark.parametrize("how", ["rows", "numpy.array(rows)", "pandas.DataFrame(rows)"])
@pytest.mark.parametrize("name", ["RandomForestClassifier", "ExtraTreesRegressor"])
def test_sklearn_answers_as_one_by_one(load, tmp_path, how, name):
    joblib, ensemble = pytest.importorskip("joblib"), pytest.importorskip("sklearn.ensemble")
    for library in ("numpy", how.partition(".")[0]):
        if library != "rows":
            pytest.importorskip(library)
    from sklearn.datasets import make_classification

    x, y = make_classification(300, n_features=4, random_state=3)
    joblib.dump(getattr(ensemble, name)(10, random_state=0).fit(x, y), tmp_path / "model.pkl")
    code = f"""
    import joblib, numpy
    class Preprocess:
        def load(self, path):
            self._model = joblib.load(path)
            return self._model
        def process(self, data, state, collect=None):
            rows = data["rows"]
            return self._model.predict({how.replace("pandas", "__import__('pandas')")})
    """
    endpoint = stacked(load, code, model_path=str(tmp_path / "model.pkl"))
    answers = assert_same_as_alone(endpoint, bodies_of(x))
    assert [a.status == 200 for a in answers[:5]] == [True, True, True, False, True]
    assert not endpoint.stack._off
    endpoint.unload()


LOCKED = (
    MODEL
    + """
    class Preprocess:
        def load(self, path):
            self._model, self._lock = Model(), threading.Lock()
        def process(self, data, state, collect=None):
            with self._lock:
                return self._model.predict([[data, 1]])[0]
"""
)


def test_a_lock_held_at_the_call_stops_nobody(load, host, monkeypatch):
    monkeypatch.setattr(predictcalls, "PATIENCE", 0.05)
    endpoint = stacked(load, LOCKED)
    answers = together(endpoint, *range(6))
    assert [json.loads(a.body) for a in answers] == list(range(1, 7))
    assert "such as a lock" in host.text()
    assert [json.loads(a.body) for a in together(endpoint, *range(6))] == list(range(1, 7))  # one by one from now on
    endpoint.unload()


@contextlib.contextmanager
def beside_one_that_waits(load, until):
    """Run three requests, the second of which waits for a lock until the block ends; it begins when until says so."""
    endpoint = stacked(load, LOCKED.replace("with self._lock:", "with self._lock if data == 2 else threading.Lock():"))
    with endpoint.instance._lock:
        cases = [endpoint.begin(number, b"%d" % number, "", META) for number in (1, 2, 3)]
        running = threading.Thread(target=endpoint.stack.run, args=(cases,))
        running.start()
        end = time.monotonic() + 60
        while not until(endpoint) and time.monotonic() < end:
            time.sleep(0.01)
        yield endpoint
        assert running.is_alive()
    running.join(60)
    assert not running.is_alive()
    assert [case.data for case in cases] == [2, 3, 4]


def test_a_request_that_hangs_keeps_no_other_from_its_call(load, monkeypatch):
    monkeypatch.setattr(predictcalls, "PATIENCE", 0.05)
    with beside_one_that_waits(load, lambda endpoint: len(endpoint.instance._model.calls) == 2) as endpoint:
        assert len(endpoint.instance._model.calls) == 2
    assert endpoint.stack._off
    endpoint.unload()


def test_a_request_that_the_machine_holds_up_is_waited_for(load, monkeypatch):
    looks = []

    def starved(thread):
        looks.append(thread)
        return float(len(looks))

    monkeypatch.setattr(predictcalls, "PATIENCE", 0.05)
    monkeypatch.setattr(predictcalls, "run_delay", starved)
    with beside_one_that_waits(load, lambda _: len(looks) >= 5) as endpoint:
        assert len(looks) >= 5
        assert set(looks) <= {thread.native_id for thread in threading.enumerate() if thread.name == "request"}
        assert endpoint.instance._model.calls == []
    assert [size for size, _ in endpoint.instance._model.calls] == [3, 1]
    assert not endpoint.stack._off
    endpoint.unload()


def test_a_process_that_never_asks_its_model_is_told(load, host):
    code = (
        "    class M:\n        def predict(self, rows): return rows\n"
        + """
    class Preprocess:
        def load(self, path): return M()
        def process(self, data, state, collect=None): return data
    """
    )
    endpoint = stacked(load, code)
    for _ in range(predictcalls.IDLE_RUNS):
        assert not endpoint.stack._off
        assert [json.loads(a.body) for a in together(endpoint, 1, 2)] == [1, 2]
    assert endpoint.stack._off
    assert "never calls predict" in host.text()
    assert [json.loads(a.body) for a in together(endpoint, 1, 2)] == [1, 2]
    endpoint.unload()


def test_without_threads_requests_are_processed_one_by_one(load, host, monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(predictcalls.Carrier, "start", refuse)
    endpoint = stacked(load, CODE)
    assert [json.loads(a.body) for a in together(endpoint, {"x": 1}, {"x": 2})] == [[1, 2], [2, 3]]
    assert "no thread for each of 2 requests" in host.text()


def test_quick_models_are_asked_one_by_one_and_slow_ones_together():
    costs = predictcalls.Costs()
    for _ in range(20):
        costs.was_alone(0.001)
    chosen = []
    for _ in range(2 * predictcalls.LOOK):
        chosen.append(costs.worth(8))
        if chosen[-1]:
            costs.was_together(8, 0.016)
    assert chosen == [n % predictcalls.LOOK == 0 for n in range(2 * predictcalls.LOOK)]
    assert costs.worth(32)
    costs.was_together(32, 0.016)
    assert [costs.worth(n) for n in (33, 32, 40)] == [True, True, True]
    assert [costs.worth(9), costs.worth(9)] == [True, False]  # it was time to look
    for _ in range(100):
        costs.was_alone(0.01)  # the model was exchanged for a larger one, or the machine is slower
    assert costs.worth(9)


def test_a_batch_tells_what_a_request_takes_alone(load):
    endpoint = load(CODE, extra={"max_batch_size": 8}).endpoint
    assert [json.loads(a.body)[1] for a in together(endpoint, *({"x": x} for x in range(4)))] == [1, 2, 3, 4]
    assert endpoint.instance._model.calls == [(1, True), (3, True), (1, True)]
    assert endpoint.stack.costs.alone > 0
    endpoint.unload()


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (
            "class Preprocess:\n    def process(self, data, state, collect): return 1\n",
            "no model with a method predict",
        ),
        ("class Preprocess:\n    async def process(self, data, state, collect): return 1\n", "an async process"),
        ("class Preprocess:\n    pass\n", "no method process"),
    ],
)
def test_code_with_nothing_to_stack_is_refused(load, code, says):
    with pytest.raises(LoadError, match=f"max_batch_size=8 is set, but the code has {says}.*process_batch"):
        load(code, extra={"max_batch_size": 8})
