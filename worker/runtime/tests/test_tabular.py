"""Records with names, and the setting `method`; each test runs where its library is installed."""

import json

import pytest

from answer import LoadError

RECORDS = [
    {"kind": "a", "size": 1.5, "age": 30},
    {"kind": "c", "size": None, "age": 71},
    {"kind": None, "size": -0.5, "age": None},
    {"kind": "b", "size": 3, "age": 18},
]
MODELS = (
    "pipeline.pkl",
    "hist.pkl",
    "trees.json",
    "trees.ubj",
    "trees.pkl",
    "numbers.ubj",
    "light.txt",
    "light.pkl",
)


class Trained:
    """A model's file, its engine, and what Python answers for records."""

    def __init__(self, file, engine, expected):
        self.file, self.engine, self._expected = file, engine, expected

    def expected(self, records):
        """Predict all records as rows of one table, so that no column of it is without a value."""
        return self._expected(records)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Train a model of each kind on a table with missing values and categories, and save it."""
    joblib, numpy = pytest.importorskip("joblib"), pytest.importorskip("numpy")
    pandas = pytest.importorskip("pandas")
    xgboost, lightgbm = pytest.importorskip("xgboost"), pytest.importorskip("lightgbm")
    pytest.importorskip("sklearn")
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    random, folder = numpy.random.default_rng(7), tmp_path_factory.mktemp("tabular")
    kind = random.choice(["a", "b", "c"], 400).astype(object)
    table = pandas.DataFrame({"kind": kind, "size": random.normal(size=400), "age": random.integers(18, 90, 400)})
    table["age"] = table["age"].astype(float)
    scores = (kind == "a") * 2.0 - (kind == "b") + table["size"] + table["age"] / 90
    labels = (scores > scores.median()).astype(int)
    for name in table.columns:
        table.loc[random.random(400) < 0.1, name] = None
    typed = table.assign(kind=table["kind"].astype("category"))

    pipeline = make_pipeline(
        make_column_transformer(
            (OneHotEncoder(handle_unknown="ignore"), ["kind"]), (SimpleImputer(strategy="median"), ["size", "age"])
        ),
        LogisticRegression(),
    ).fit(table, labels)
    hist = HistGradientBoostingRegressor(categorical_features="from_dtype", max_iter=20).fit(typed, scores)
    trees = xgboost.XGBClassifier(n_estimators=8, enable_categorical=True).fit(typed, labels)
    numbers = xgboost.XGBRegressor(n_estimators=8, enable_categorical=True).fit(
        typed.assign(kind=pandas.Categorical(typed["kind"].cat.codes.replace(-1, 0).astype("int8"))), scores
    )
    light = lightgbm.LGBMClassifier(n_estimators=8, verbosity=-1).fit(typed, labels)
    joblib.dump(pipeline, folder / "pipeline.pkl")
    joblib.dump(hist, folder / "hist.pkl")
    joblib.dump(trees, folder / "trees.pkl")
    trees.save_model(folder / "trees.json")
    trees.save_model(folder / "trees.ubj")
    numbers.save_model(folder / "numbers.ubj")
    joblib.dump(light, folder / "light.pkl")
    light.booster_.save_model(folder / "light.txt")

    def of(predict, categories=None):
        def expected(records):
            rows = pandas.DataFrame([*records, *RECORDS], columns=["kind", "size", "age"])
            if categories is not None:
                rows["kind"] = pandas.Categorical(rows["kind"], categories=categories)
            return predict(rows.astype({"size": float, "age": float}))[: len(records)].tolist()

        return expected

    kinds = ["a", "b", "c"]
    matrix = lambda rows: xgboost.DMatrix(rows, enable_categorical=True)  # noqa: E731
    codes = numpy.array([0, 1, 2], "int8")
    expected = {
        "pipeline.pkl": ("sklearn", of(pipeline.predict)),
        "hist.pkl": ("sklearn", of(hist.predict)),
        "trees.pkl": ("sklearn", of(trees.predict, kinds)),
        "trees.json": ("xgboost", of(lambda rows: trees.get_booster().predict(matrix(rows)), kinds)),
        "trees.ubj": ("xgboost", of(lambda rows: trees.get_booster().predict(matrix(rows)), kinds)),
        "numbers.ubj": (
            "xgboost",
            of(
                lambda rows: numbers.predict(
                    rows.assign(kind=pandas.Categorical.from_codes(rows["kind"].cat.codes, pandas.Index(codes)))
                ),
                kinds,
            ),
        ),
        "light.pkl": ("sklearn", of(light.predict, kinds)),
        "light.txt": ("lightgbm", of(light.booster_.predict, kinds)),
    }
    return {name: Trained(folder / name, *found) for name, found in expected.items()}


@pytest.fixture(params=MODELS)
def model(request, trained):
    return trained[request.param]


def serve(load, model, **extra):
    return load(None, engine=model.engine, model_path=str(model.file), extra=extra)


def sent(model, record):
    """Return the record as clients of the model send it: one model has numbers as categories."""
    codes = {"a": 0, "b": 1, "c": 2, None: None}
    return {**record, "kind": codes.get(record["kind"], 9)} if model.file.name == "numbers.ubj" else record


def test_records_are_predicted_as_in_python(load, model):
    endpoint = serve(load, model)
    want = model.expected(RECORDS)
    assert len(set(want)) > 1
    asked = [sent(model, record) for record in RECORDS]
    assert endpoint.value(asked) == pytest.approx(want)
    assert endpoint.value([dict(reversed(record.items())) for record in asked]) == pytest.approx(want)
    for record, answer in zip(asked, want):
        assert endpoint.value(record) == pytest.approx([answer]), record


def test_a_column_without_any_value_is_missing(load, model):
    endpoint = serve(load, model)
    for name in ("kind", "size", "age"):
        records = [{**record, name: None} for record in RECORDS[:2]]
        want = model.expected(records)
        assert endpoint.value([sent(model, record) for record in records]) == pytest.approx(want), name
        assert endpoint.value(sent(model, records[0])) == pytest.approx(want[:1]), name
    nothing = {"kind": None, "size": None, "age": None}
    assert endpoint.value(nothing) == pytest.approx(model.expected([nothing]))


def test_a_misspelled_missing_or_further_column_is_named(load, model):
    endpoint = serve(load, model)
    first = sent(model, RECORDS[0])
    status, detail = endpoint.detail([first, {"kind": first["kind"], "sise": 1, "age": 2}])
    assert status == 422
    assert "record 2 of 2 has no 'size' and has 'sise' (did you mean 'size'?), which the model does not know" in detail
    assert "the model's columns are 'kind', 'size', 'age'" in detail
    status, detail = endpoint.detail({"kind": first["kind"], "age": 1})
    assert status == 422
    assert "the record has no 'size';" in detail
    status, detail = endpoint.detail({**first, "colour": 1})
    assert status == 422
    assert "the record has 'colour', which the model does not know" in detail
    status, detail = endpoint.detail([first, [1, 2, 3]])
    assert status == 422
    assert "record 2 of 2 is of type list" in detail
    assert endpoint.detail({})[0] == 422


def test_requests_of_records_are_predicted_together(load, model):
    endpoint = serve(load, model, max_batch_size=8).endpoint
    meta = {"sampled": False, "request_id": "r", "depth": 0, "deadline": None}
    asked = [[sent(model, RECORDS[0])], [sent(model, RECORDS[3]), sent(model, RECORDS[0])], [sent(model, RECORDS[1])]]
    cases = [
        endpoint.begin(number, json.dumps(body).encode(), "application/json", meta) for number, body in enumerate(asked)
    ]
    assert [case.rows for case in cases] == [1, 2, 1]
    endpoint.stack.run(cases)
    answers = [json.loads(endpoint.finish(case).body) for case in cases]
    want = model.expected([RECORDS[0], RECORDS[3], RECORDS[0], RECORDS[1]])
    assert answers == [pytest.approx(want[:1]), pytest.approx(want[1:3]), pytest.approx(want[3:])]


def test_a_value_that_training_did_not_have(load, model):
    """Each library's own rule; XGBoost's would be the answer of another category."""
    endpoint = serve(load, model)
    record = {**RECORDS[0], "kind": "bb"}
    if model.file.name.startswith(("trees", "numbers")):
        status, detail = endpoint.detail([sent(model, RECORDS[1]), sent(model, record)])
        assert status == 422
        assert "record 2 of 2 has " in detail
        assert "in the column 'kind', which training did not have; its categories are " in detail
    else:
        assert endpoint.value(record) == pytest.approx(model.expected([record]))
    for value in ([1], {"a": 1}):
        assert endpoint.detail({**RECORDS[0], "kind": value})[0] == 422


def test_rows_without_names_pass_as_they_are(load, trained):
    pandas, joblib = pytest.importorskip("pandas"), pytest.importorskip("joblib")
    light = trained["light.txt"]
    assert len(serve(load, light).value([[0, 1.5, 30], [1, 2.5, 20]])) == 2
    linear = pytest.importorskip("sklearn.linear_model")
    plain = light.file.parent / "plain.pkl"
    joblib.dump(linear.LinearRegression().fit([[1.0], [2.0]], [1.0, 2.0]), plain)
    endpoint = load(None, engine="sklearn", model_path=str(plain))
    assert "takes a JSON list of rows" in endpoint.detail({"x": 1})[1]
    named = light.file.parent / "named.pkl"
    joblib.dump(linear.LinearRegression().fit(pandas.DataFrame({"b": [1.0, 2], "a": [1.0, 0]}), [1.0, 2.0]), named)
    endpoint = load(None, engine="sklearn", model_path=str(named))
    assert endpoint.value([[3.0, 1.0]]) == endpoint.value({"a": 1.0, "b": 3.0})
    assert endpoint.detail([])[0] == 422


def test_rows_become_a_table_for_a_model_that_selects_columns_by_name(load, trained):
    endpoint = serve(load, trained["pipeline.pkl"])
    names = ("kind", "size", "age")
    rows = [[record[name] for name in names] for record in RECORDS]
    assert endpoint.value(rows) == endpoint.value(RECORDS)
    assert endpoint.value(rows[1:2]) == endpoint.value(RECORDS[1])
    status, detail = endpoint.detail([rows[0], rows[1][:2]])
    assert status == 422
    assert "row 2 of 2 has 2 values, and the model has 3 columns: 'kind', 'size', 'age'" in detail
    assert "the row has 1 values" in endpoint.detail([[1]])[1]
    assert "row 2 of 2 is of type dict" in endpoint.detail([rows[0], RECORDS[0]])[1]


def test_a_list_or_an_object_as_a_value_is_named(load, trained):
    endpoint = serve(load, trained["pipeline.pkl"])
    for value, what in (({}, "a JSON object"), ([1], "a list")):
        status, detail = endpoint.detail([RECORDS[0], {**RECORDS[1], "size": value}])
        assert status == 422, detail
        assert f"record 2 of 2 has {what} in the column 'size'" in detail
    joblib, linear = pytest.importorskip("joblib"), pytest.importorskip("sklearn.linear_model")
    plain = trained["pipeline.pkl"].file.parent / "rows.pkl"
    joblib.dump(linear.LinearRegression().fit([[1.0, 2.0], [2.0, 1.0]], [1.0, 2.0]), plain)
    endpoint = load(None, engine="sklearn", model_path=str(plain))
    status, detail = endpoint.detail([[1.0, 2.0], [1.0, {"a": 1}]])
    assert (status, "row 2 has a JSON object as value 2" in detail) == (422, True), detail


def test_a_number_in_a_column_of_texts_is_the_error_of_the_client(load, trained):
    endpoint = serve(load, trained["pipeline.pkl"])
    for body in ([[0, 0, 0]], {"kind": 0, "size": 0, "age": 0}):
        status, detail = endpoint.detail(body)
        assert (status, "a value has another type than in training" in detail) == (422, True), detail


def test_records_become_rows_without_pandas(load, trained, tmp_path, monkeypatch):
    import sys

    xgboost = pytest.importorskip("xgboost")
    matrix = xgboost.DMatrix([[0.0, 1.0], [1.0, 0.0]] * 20, label=[0, 1] * 20, feature_names=["b", "a"])
    booster = xgboost.train({"max_depth": 2}, matrix, 3)
    booster.save_model(tmp_path / "named.json")
    monkeypatch.setitem(sys.modules, "pandas", None)
    endpoint = load(None, engine="xgboost", model_path=str(tmp_path / "named.json"))
    assert endpoint.value({"a": 0, "b": 1}) == endpoint.value([[1, 0]])
    assert endpoint.value([{"a": None, "b": 1}]) == endpoint.value([[1, None]])
    status, detail = serve(load, trained["trees.ubj"]).detail(RECORDS)
    assert (status, "need pandas in the worker" in detail) == (422, True)


def test_xgboost_model_without_its_categories_refuses_records(load, tmp_path):
    numpy, xgboost = pytest.importorskip("numpy"), pytest.importorskip("xgboost")
    matrix = xgboost.DMatrix(
        numpy.array([[0, 1.0], [1, 0.0], [2, 0.5]] * 20),
        label=[0, 1, 2] * 20,
        feature_names=["kind", "size"],
        feature_types=["c", "q"],
        enable_categorical=True,
    )
    xgboost.train({}, matrix, 3).save_model(tmp_path / "codes.json")
    endpoint = load(None, engine="xgboost", model_path=str(tmp_path / "codes.json"))
    status, detail = endpoint.detail({"kind": 1, "size": 0})
    assert status == 422
    assert "does not store the categories of its columns 'kind'" in detail
    assert len(endpoint.value([[1, 0.0]])) == 1


@pytest.mark.parametrize("missing", [None, float("nan")], ids=["None", "NaN"])
def test_null_is_the_missing_value_of_training(load, tmp_path, missing):
    """Encoders of scikit-learn tell None from NaN."""
    pandas, joblib = pytest.importorskip("pandas"), pytest.importorskip("joblib")
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    words = pandas.Series(["a", "b", missing] * 20, dtype=object)
    target = [1.0, 2.0, 7.0] * 20
    for steps in ([], [SimpleImputer(strategy="most_frequent")]):
        table = pandas.DataFrame({"kind": words, "size": 1.0})
        encoder = make_pipeline(*steps, OneHotEncoder(handle_unknown="ignore"))
        model = make_pipeline(encoder, LinearRegression()).fit(table, target)
        want = model.predict(table.head(3)).tolist()
        joblib.dump(model, tmp_path / "model.pkl")
        endpoint = load(None, engine="sklearn", model_path=str(tmp_path / "model.pkl"))
        records = [{"kind": kind, "size": 1.0} for kind in ("a", "b", None)]
        assert endpoint.value(records) == pytest.approx(want)
        assert endpoint.value(records[2]) == pytest.approx(want[2:])


def test_xgboost_damages_categories_beyond_ascii(load, tmp_path):
    """XGBoost counts letters as bytes: "Genève" is stored as "Genèv", what follows is shifted, and the end is lost."""
    pandas, xgboost = pytest.importorskip("pandas"), pytest.importorskip("xgboost")
    table = pandas.DataFrame({"town": pandas.Categorical(["Bern", "Genève", "Zürich"] * 20), "size": [1.0, 2.0] * 30})
    model = xgboost.XGBClassifier(n_estimators=2, enable_categorical=True).fit(table, [0, 1, 0] * 20)
    model.save_model(tmp_path / "t.ubj")
    endpoint = load(None, engine="xgboost", model_path=str(tmp_path / "t.ubj"))
    status, detail = endpoint.detail({"town": "Bern", "size": 1})
    assert status == 422
    assert "the model has a damaged list of the categories of its columns 'town'" in detail
    assert "train it with ASCII letters" in detail
    assert len(endpoint.value([[1, 2.0]])) == 1


def test_text_in_a_column_of_numbers_is_an_error_without_a_stack_trace(load, trained):
    for name in ("trees.json", "trees.pkl", "light.txt"):
        status, detail = serve(load, trained[name]).detail({**RECORDS[0], "size": "big"})
        assert (status, "size" in detail) == (422, True), detail
    status, detail = serve(load, trained["trees.pkl"]).detail([[1.0, 2.0]])
    assert status == 422
    assert "Stack trace" not in detail
    assert "/src/" not in detail


METHODS = [
    ("pipeline.pkl", "predict_proba", 2),
    ("pipeline.pkl", "decision_function", None),
    ("pipeline.pkl", "predict_log_proba", 2),
    ("trees.json", "predict_proba", 2),
    ("trees.ubj", "predict_proba", 2),
    ("trees.pkl", "predict_proba", 2),
    ("trees.ubj", "predict", None),
    ("numbers.ubj", "predict", None),
    ("light.pkl", "predict_proba", 2),
    ("light.txt", "predict", None),
]


@pytest.mark.parametrize(("name", "method", "width"), METHODS)
def test_the_setting_method_names_what_is_called(load, trained, name, method, width):
    model = trained[name]
    answers = serve(load, model, method=method).value([sent(model, record) for record in RECORDS])
    plain = serve(load, model).value([sent(model, record) for record in RECORDS])
    if width:
        assert [len(answer) for answer in answers] == [width] * len(RECORDS)
    if (name, method) == ("trees.ubj", "predict"):
        assert answers == [int(score > 0.5) for score in plain]
    elif method == "predict":
        assert answers == pytest.approx(plain)
    elif name in ("trees.json", "trees.ubj"):
        assert [answer[1] for answer in answers] == pytest.approx(plain)
    together = serve(load, model, method=method, max_batch_size=8)
    assert together.value(sent(model, RECORDS[0]))[0] == pytest.approx(answers[0])


def test_a_model_without_the_method_lists_its_own(load, trained, tmp_path):
    with pytest.raises(LoadError, match=r"has no predict_proba method, which .* it has predict$"):
        serve(load, trained["hist.pkl"], method="predict_proba")
    with pytest.raises(LoadError, match=r"a Booster has no predict_proba method, .* it has predict$"):
        serve(load, trained["light.txt"], method="predict_proba")
    joblib, scaler = pytest.importorskip("joblib"), pytest.importorskip("sklearn.preprocessing")
    joblib.dump(scaler.StandardScaler().fit([[0.0], [2.0]]), tmp_path / "scaler.pkl")
    with pytest.raises(LoadError, match=r"has no predict method, which the sklearn engine calls$"):
        load(None, engine="sklearn", model_path=str(tmp_path / "scaler.pkl"))
    endpoint = load(None, engine="sklearn", model_path=str(tmp_path / "scaler.pkl"), extra={"method": "transform"})
    assert endpoint.value([[2.0], [0.0]]) == [[1.0], [-1.0]]
