"""The engines with a model library; each test runs where its library is installed."""

import json
import sys

import pytest

import engines
from answer import LoadError

ROWS = [[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [2.0, 2.0]]
LABELS = [0, 1, 0, 1]
PRE = """
    class Preprocess:
        def preprocess(self, body, state, collect_custom_statistics_fn=None):
            return [[body["x0"], body["x1"]]]
        def postprocess(self, data, state, collect_custom_statistics_fn=None):
            return {"y": data.tolist()}
"""


@pytest.fixture
def sklearn_file(tmp_path):
    pytest.importorskip("sklearn")
    import joblib
    from sklearn.linear_model import LogisticRegression

    file = tmp_path / "model.pkl"
    joblib.dump(LogisticRegression().fit(ROWS, LABELS), file)
    return file


@pytest.fixture
def xgboost_file(tmp_path):
    xgboost = pytest.importorskip("xgboost")
    file = tmp_path / "model.json"
    xgboost.train({"max_depth": 2}, xgboost.DMatrix(ROWS, label=LABELS), 3).save_model(file)
    return file


@pytest.fixture
def lightgbm_file(tmp_path):
    lightgbm = pytest.importorskip("lightgbm")
    numpy = pytest.importorskip("numpy")
    data = lightgbm.Dataset(numpy.array(ROWS * 20), label=LABELS * 20)
    file = tmp_path / "lgbm_model"
    lightgbm.train({"objective": "binary", "verbosity": -1, "min_data_in_leaf": 1}, data, 3).save_model(file)
    return file


def test_sklearn_as_in_the_example(load, sklearn_file):
    endpoint = load(PRE, engine="sklearn", model_path=str(sklearn_file))
    assert endpoint.value({"x0": 2, "x1": 2}) == {"y": [1]}


def test_sklearn_without_code_takes_rows(load, sklearn_file):
    endpoint = load(None, engine="sklearn", model_path=str(sklearn_file))
    assert endpoint.value([[0, 0], [2, 2]]) == [0, 1]
    status, detail = endpoint.detail([[1, 2, 3]])
    assert status == 422
    assert "features" in detail


def test_model_in_a_folder_of_one_file_is_found(load, sklearn_file, tmp_path):
    folder = tmp_path / "packaged"
    folder.mkdir()
    sklearn_file.rename(folder / "model.pkl")
    assert load(None, engine="sklearn", model_path=str(folder)).value([[2, 2]]) == [1]


def test_folder_of_several_files_asks_for_load(load, sklearn_file, tmp_path):
    (tmp_path / "readme.txt").write_text("x")
    with pytest.raises(LoadError, match=r"it is a folder .*model.pkl, readme.txt.*write a Preprocess class whose load"):
        load(None, engine="sklearn", model_path=str(tmp_path))


def test_numpy_answer_needs_no_conversion(load, sklearn_file):
    code = """
        class Preprocess:
            def postprocess(self, data, state, collect_custom_statistics_fn=None):
                return {"y": data, "first": data[0]}
    """
    assert load(code, engine="sklearn", model_path=str(sklearn_file)).value([[2, 2]]) == {"y": [1], "first": 1}


def test_xgboost_takes_a_matrix_or_rows(load, xgboost_file):
    matrix = load(
        """
        import xgboost
        class Preprocess:
            def preprocess(self, body, state, collect_custom_statistics_fn=None):
                return xgboost.DMatrix([[body["x0"], body["x1"]]])
        """,
        engine="xgboost",
        model_path=str(xgboost_file),
    )
    rows = load(None, engine="xgboost", model_path=str(xgboost_file))
    assert matrix.value({"x0": 2, "x1": 2}) == rows.value([[2, 2]])
    arrays = load(
        "import numpy\nclass Preprocess:\n    def preprocess(self, body, *args): return numpy.array(body)\n",
        engine="xgboost",
        model_path=str(xgboost_file),
    )
    assert arrays.value([[2, 2], [0, 0]]) == rows.value([[2, 2], [0, 0]])
    assert rows.detail([1, 2])[0] == 422
    assert rows.detail([["a", "b"]])[0] == 422


def test_xgboost_model_with_names_takes_bare_rows(load, tmp_path):
    xgboost = pytest.importorskip("xgboost")
    file = tmp_path / "named.json"
    data = xgboost.DMatrix(ROWS, label=LABELS, feature_names=["a", "b"])
    xgboost.train({"max_depth": 2}, data, 3).save_model(file)
    assert len(load(None, engine="xgboost", model_path=str(file)).value([[2, 2]])) == 1


def test_lightgbm_takes_rows(load, lightgbm_file):
    answer = load(None, engine="lightgbm", model_path=str(lightgbm_file)).value([[2, 2], [0, 0]])
    assert answer[0] > 0.5 > answer[1]


@pytest.mark.parametrize("engine", ["sklearn", "xgboost", "lightgbm"])
def test_file_that_is_no_model_is_named(load, tmp_path, engine):
    pytest.importorskip(engine)
    file = tmp_path / "weights.bin"
    file.write_bytes(b"not a model")
    with pytest.raises(
        LoadError, match=r"'test/1': weights.bin is not a model that the .* engine can load: "
    ) as caught:
        load(None, engine=engine, model_path=str(file))
    assert "engines.py" not in caught.value.traceback_text


def test_missing_file_is_named(load):
    with pytest.raises(LoadError, match=r"/no/model.pkl is not there"):
        load(None, engine="sklearn", model_path="/no/model.pkl")


@pytest.mark.parametrize(
    ("engine", "module", "packages"),
    [
        ("sklearn", "joblib", "scikit-learn joblib"),
        ("xgboost", "xgboost", "xgboost"),
        ("lightgbm", "lightgbm", "lightgbm"),
    ],
)
def test_missing_library_shows_the_command(load, tmp_path, monkeypatch, engine, module, packages):
    monkeypatch.setitem(sys.modules, module, None)
    file = tmp_path / "model"
    file.write_bytes(b"x")
    with pytest.raises(LoadError) as caught:
        load(None, engine=engine, model_path=str(file))
    assert f"the {engine} engine needs {module}" in caught.value.message
    assert caught.value.message.endswith(f"{sys.executable} -m pip install {packages}")


def test_model_of_a_class_from_the_training_script_says_what_to_do(load, tmp_path):
    pytest.importorskip("sklearn")
    file = tmp_path / "model.pkl"
    file.write_bytes(b"c__main__\nScaler\n.")
    with pytest.raises(LoadError, match=r"define the same in the endpoint's preprocess code"):
        load(None, engine="sklearn", model_path=str(file))
    code = """
        class Scaler:
            @staticmethod
            def predict(data): return data
        class Preprocess: pass
    """
    assert load(code, engine="sklearn", model_path=str(file)).value([[1]]) == [[1]]


def test_threads_are_capped(load, monkeypatch):
    limits = []

    class Limiter:
        @staticmethod
        def threadpool_limits(limits):
            Limiter.seen.append(limits)

    Limiter.seen = limits
    monkeypatch.setitem(sys.modules, "threadpoolctl", Limiter)
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    load(None, threads=3)
    assert limits == [3]
    assert engines.os.environ["OMP_NUM_THREADS"] == "3"
    engines.limit_threads(0)
    assert limits == [3]


def test_statistics_of_a_model_engine(load, sklearn_file):
    endpoint = load(PRE, engine="sklearn", model_path=str(sklearn_file), variables=["x0", "y"])
    answer = endpoint.ask({"x0": 2, "x1": 2}, sampled=True)
    assert json.loads(answer.stats) == {"x0": 2, "y": [1]}
