"""The engines with a model library; each test runs where its library is installed."""

import json
import sys

import pytest

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


def test_statistics_of_a_model_engine(load, sklearn_file):
    endpoint = load(PRE, engine="sklearn", model_path=str(sklearn_file), variables=["x0", "y"])
    answer = endpoint.ask({"x0": 2, "x1": 2}, sampled=True)
    assert json.loads(answer.stats) == {"x0": 2, "y": [1]}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Write models of every library in every format that it has."""
    joblib, numpy = pytest.importorskip("joblib"), pytest.importorskip("numpy")
    xgboost, lightgbm = pytest.importorskip("xgboost"), pytest.importorskip("lightgbm")
    linear = pytest.importorskip("sklearn.linear_model")
    import pickle
    import zipfile

    folder = tmp_path_factory.mktemp("models")
    rows, labels = numpy.array(ROWS * 20), LABELS * 20
    trees = xgboost.XGBClassifier(n_estimators=2).fit(rows, labels)
    light = lightgbm.LGBMClassifier(n_estimators=2, verbosity=-1).fit(rows, labels)
    logistic = linear.LogisticRegression().fit(rows, labels)
    trees.save_model(folder / "trees.json")
    trees.save_model(folder / "trees.ubj")
    joblib.dump(trees, folder / "trees.pkl")
    light.booster_.save_model(folder / "light.txt")
    joblib.dump(light, folder / "light.pkl")
    (folder / "light.json").write_text(json.dumps(light.booster_.dump_model()))
    joblib.dump(logistic, folder / "logistic.pkl")
    joblib.dump(logistic, folder / "logistic.z", compress=3)
    joblib.dump(logistic, folder / "logistic.gz", compress=("gzip", 3))
    joblib.dump(logistic, folder / "logistic.xz", compress=("xz", 3))
    joblib.dump(logistic, folder / "logistic.lzma", compress=("lzma", 3))
    (folder / "logistic.0").write_bytes(pickle.dumps(logistic, protocol=0))
    (folder / "text.json").write_text('{"a": 1}')
    (folder / "model.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    (folder / "model.onnx").write_bytes(b"\x08\x09\x12\x08skl2onnx" + bytes(100))
    (folder / "empty.pkl").write_bytes(b"")
    for name, held in (
        ("model.pt", "m/data.pkl"),
        ("script.pt", "m/constants.pkl"),
        ("model.keras", "model.weights.h5"),
    ):
        with zipfile.ZipFile(folder / name, "w") as archive:
            archive.writestr(held, b"x")
    return folder


@pytest.mark.parametrize(
    ("name", "engine", "says"),
    [
        ("trees.json", "sklearn", "an XGBoost model saved as JSON: use --engine xgboost"),
        ("trees.json", "lightgbm", "an XGBoost model saved as JSON: use --engine xgboost"),
        ("trees.ubj", "sklearn", "an XGBoost model saved as UBJSON: use --engine xgboost"),
        ("trees.ubj", "lightgbm", "an XGBoost model saved as UBJSON: use --engine xgboost"),
        ("trees.pkl", "xgboost", "a pickled XGBoost model: use --engine sklearn"),
        ("trees.pkl", "lightgbm", "a pickled XGBoost model: use --engine sklearn"),
        ("light.txt", "sklearn", "a LightGBM model saved as text: use --engine lightgbm"),
        ("light.txt", "xgboost", "a LightGBM model saved as text: use --engine lightgbm"),
        ("light.pkl", "lightgbm", "a pickled LightGBM model: use --engine sklearn"),
        ("light.json", "lightgbm", "save it with booster.save_model"),
        ("light.json", "sklearn", "use --engine lightgbm"),
        ("logistic.pkl", "xgboost", "a pickled scikit-learn model: use --engine sklearn"),
        ("logistic.z", "lightgbm", "a pickled scikit-learn model: use --engine sklearn"),
        ("logistic.gz", "xgboost", "a pickled scikit-learn model: use --engine sklearn"),
        ("logistic.xz", "xgboost", "a pickled scikit-learn model: use --engine sklearn"),
        ("logistic.lzma", "lightgbm", "a pickled scikit-learn model: use --engine sklearn"),
        ("logistic.0", "lightgbm", "a pickled scikit-learn model: use --engine sklearn"),
        ("text.json", "sklearn", "a JSON file: use --engine custom"),
        ("text.json", "xgboost", "a JSON file: use --engine custom"),
        ("text.json", "lightgbm", "a JSON file: use --engine custom"),
        ("model.h5", "sklearn", "an HDF5 file, such as a Keras model: use --engine triton"),
        ("model.keras", "xgboost", "a Keras model: use --engine triton"),
        ("model.onnx", "sklearn", "an ONNX model: use --engine onnx"),
        ("model.onnx", "lightgbm", "an ONNX model: use --engine onnx"),
        ("model.pt", "sklearn", "a file of torch.save: use --engine custom"),
        ("script.pt", "sklearn", "a PyTorch model in TorchScript: use --engine triton"),
        ("empty.pkl", "sklearn", "an empty file: upload the model again"),
    ],
)
def test_a_model_under_the_wrong_engine_names_the_right_one(load, files, name, engine, says):
    with pytest.raises(LoadError) as raised:
        load(None, engine=engine, model_path=str(files / name))
    assert says in raised.value.message
    assert name in raised.value.message


@pytest.mark.parametrize(
    ("name", "engine"), [("trees.pkl", "sklearn"), ("light.pkl", "sklearn"), ("trees.ubj", "xgboost")]
)
def test_models_of_the_wrappers_are_served(load, files, name, engine):
    assert len(load(None, engine=engine, model_path=str(files / name)).value([[1, 1], [None, 0.9]])) == 2


def test_a_pickled_booster_is_served(load, xgboost_file, tmp_path):
    xgboost, joblib = pytest.importorskip("xgboost"), pytest.importorskip("joblib")
    booster = xgboost.Booster(model_file=xgboost_file)
    joblib.dump(booster, tmp_path / "booster.pkl")
    endpoint = load(None, engine="sklearn", model_path=str(tmp_path / "booster.pkl"))
    assert endpoint.value([[1, 1]]) == load(None, engine="xgboost", model_path=str(xgboost_file)).value([[1, 1]])


def test_a_damaged_file_of_the_right_format_says_so(load, files, tmp_path):
    whole = (files / "logistic.pkl").read_bytes()
    (tmp_path / "logistic.pkl").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LoadError, match="looks like a pickled scikit-learn model, but it is damaged"):
        load(None, engine="sklearn", model_path=str(tmp_path / "logistic.pkl"))


@pytest.mark.parametrize("engine", ["sklearn", "xgboost", "lightgbm"])
def test_null_is_a_missing_value(load, tmp_path, engine):
    numpy, joblib = pytest.importorskip("numpy"), pytest.importorskip("joblib")
    rows = numpy.array([*ROWS * 20, [float("nan"), 0.5], [0.5, float("nan")]])
    labels = [*LABELS * 20, 0, 1]
    file = tmp_path / "model.json"
    if engine == "sklearn":
        ensemble = pytest.importorskip("sklearn.ensemble")
        model = ensemble.HistGradientBoostingRegressor(max_iter=5).fit(rows, labels)
        joblib.dump(model, file)
        expected = model.predict
    elif engine == "xgboost":
        xgboost = pytest.importorskip("xgboost")
        model = xgboost.train({"max_depth": 2}, xgboost.DMatrix(rows, label=labels), 3)
        model.save_model(file)
        expected = lambda rows: model.predict(xgboost.DMatrix(rows))  # noqa: E731
    else:
        lightgbm = pytest.importorskip("lightgbm")
        model = lightgbm.train({"verbosity": -1, "min_data_in_leaf": 1}, lightgbm.Dataset(rows, label=labels), 3)
        model.save_model(file)
        expected = model.predict
    endpoint = load(None, engine=engine, model_path=str(file))
    for asked in ([[None, 0.9]], [[None, 1]], [[None, None]], [[1, None], [None, 0]], [[True, None]]):
        want = expected(numpy.array(asked, dtype=float)).tolist()
        assert endpoint.value(asked) == pytest.approx(want), asked
    together = load(None, engine=engine, model_path=str(file), extra={"max_batch_size": 8})
    assert together.value([[None, 0.9]]) == endpoint.value([[None, 0.9]])


def test_xgboost_takes_columns_of_categories(load, tmp_path):
    xgboost, pandas = pytest.importorskip("xgboost"), pytest.importorskip("pandas")
    table = pandas.DataFrame({"kind": pandas.Categorical(["x", "y", "z"] * 20), "size": [float(n) for n in range(60)]})
    matrix = xgboost.DMatrix(table, label=[0, 1, 0] * 20, enable_categorical=True)
    xgboost.train({"max_depth": 3}, matrix, 5).save_model(tmp_path / "model.ubj")
    code = """
        import pandas
        class Preprocess:
            def preprocess(self, body, state, collect_custom_statistics_fn=None):
                kinds = pandas.Categorical([row["kind"] for row in body], categories=["x", "y", "z"])
                return pandas.DataFrame({"kind": kinds, "size": [row["size"] for row in body]})
    """
    endpoint = load(code, engine="xgboost", model_path=str(tmp_path / "model.ubj"))
    first, second = endpoint.value([{"kind": "x", "size": 0.0}, {"kind": "y", "size": 1.0}])
    assert first < 0.5 < second
    assert endpoint.value([{"kind": "y", "size": 1.0}]) == [pytest.approx(second)]
    codes = load(None, engine="xgboost", model_path=str(tmp_path / "model.ubj"))
    assert codes.value([[0, 0.0], [1, 1.0]]) == [pytest.approx(first), pytest.approx(second)]


def test_processes_that_a_model_without_code_starts_run_nothing_of_ours(load, tmp_path):
    joblib = pytest.importorskip("joblib")
    pytest.importorskip("sklearn")
    (tmp_path / "user_spawning.py").write_text(
        "import multiprocessing\n"
        "class Model:\n"
        "    def predict(self, rows):\n"
        "        with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "            return pool.map(abs, rows)\n"
    )
    sys.path.append(str(tmp_path))
    import user_spawning

    joblib.dump(user_spawning.Model(), tmp_path / "model.pkl")
    assert load(None, engine="sklearn", model_path=str(tmp_path / "model.pkl")).value([-1, 2]) == [1, 2]
