"""The signature that a worker reports: of models, of type hints, and of code that is in the way."""

import json

import pytest


@pytest.fixture
def signed(load):
    """Load an endpoint as for the first time, and return it with its signature."""

    def make(code=None, **spec):
        loaded = load(code, **{"signature": True, "max_frame": 1 << 20, **spec})
        return loaded, loaded.endpoint.signature

    return make


@pytest.fixture
def saved(tmp_path):
    """Save a model for the engine sklearn."""
    joblib = pytest.importorskip("joblib")

    def save(model):
        file = tmp_path / "model.pkl"
        joblib.dump(model, file)
        return {"engine": "sklearn", "model_path": str(file)}

    return save


def table(rows=60):
    numpy, pandas = pytest.importorskip("numpy"), pytest.importorskip("pandas")
    random = numpy.random.default_rng(3)
    kind = random.choice(["a", "b", "c"], rows).astype(object)
    kind[:3] = None
    found = pandas.DataFrame(
        {
            "kind": kind,
            "size": random.normal(5, 1, rows),
            "rooms": random.integers(1, 4, rows),
            "text": ["some words", "other words"] * (rows // 2),
            "unused": ["x"] * rows,
        }
    )
    found.loc[5, "size"] = None
    return found, random.integers(0, 2, rows)


def sample(spec):
    """Return what Go puts into a made record."""
    if "example" in spec:
        return spec["example"]
    kind = spec.get("datatype", "")
    if spec.get("categories"):
        first = spec["categories"][0]
        return first if kind in ("BYTES", "") else json.loads(first)
    return {"": None, "BOOL": False, "BYTES": "text"}.get(kind, 0.0)


def test_a_number_may_be_null_where_nan_is_sent_as_null(signed, saved):
    linear_model = pytest.importorskip("sklearn.linear_model")
    data, labels = table()
    spec = saved(linear_model.LinearRegression().fit(data[["rooms"]], labels))
    _, signature = signed(None, **spec, extra={"nan_as_null": True})
    assert signature["answer_schema"]["items"] == {"type": ["number", "null"]}
    _, signature = signed(None, **spec)
    assert signature["answer_schema"]["items"] == {"type": "number"}


def shape_of(answer):
    shape = []
    while isinstance(answer, list):
        shape.append(len(answer))
        answer = answer[0] if answer else None
    return shape, answer


TYPES = {"BYTES": str, "BOOL": bool, "FP64": float, "FP32": float, "INT64": int, "INT32": int, "UINT8": int}


def check_output(signature, answer):
    """Compare an answer to one row with the described output."""
    (output,) = signature["outputs"]
    shape, element = shape_of(answer)
    assert output["datatype"] in TYPES
    assert type(element) is TYPES[output["datatype"]], (output, answer)
    assert [1, *output["shape"][1:]] == shape, (output, answer)
    assert signature["answer_schema"]["type"] == "array"


def test_a_pipeline_tells_of_each_column(signed, saved):
    from sklearn.compose import make_column_transformer
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

    data, labels = table()
    model = make_pipeline(
        make_column_transformer(
            (make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder()), ["kind"]),
            (make_pipeline(StandardScaler(), SimpleImputer()), ["size"]),
            (OrdinalEncoder(), ["rooms"]),
            (TfidfVectorizer(), "text"),
            ("drop", ["unused"]),
        ),
        LogisticRegression(),
    ).fit(data, labels.astype(str))
    endpoint, signature = signed(**saved(model))
    kind, size, rooms, text, unused = signature["inputs"]
    assert signature["source"] == "model"
    assert signature["table"]
    assert kind == {
        "name": "kind",
        "shape": [-1, 1],
        "datatype": "BYTES",
        "categories": ["a", "b", "c"],
        "optional": True,
        "example": kind["example"],
    }
    assert kind["example"] in ("a", "b", "c")
    assert (size["datatype"], size["optional"], "categories" in size) == ("FP64", True, False)
    assert size["example"] == pytest.approx(data["size"].mean(), rel=1e-2)
    assert (rooms["datatype"], rooms["categories"]) == ("INT64", ["1", "2", "3"])
    assert "optional" not in rooms
    assert (text["datatype"], text["example"]) == ("BYTES", "text")
    assert unused == {"name": "unused", "shape": [-1, 1], "optional": True}
    assert signature["outputs"] == [{"name": "predict", "datatype": "BYTES", "shape": [-1]}]
    made = {spec["name"]: sample(spec) for spec in signature["inputs"]}
    check_output(signature, endpoint.value(made))
    for spec in signature["inputs"]:  # what may be missing is answered, anything else is not
        status = endpoint.ask({**made, spec["name"]: None}).status
        assert (status == 200) == spec.get("optional", False), spec


def models():
    from sklearn import cluster, ensemble, linear_model, naive_bayes, neighbors, svm, tree
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.model_selection import GridSearchCV
    from sklearn.multioutput import MultiOutputClassifier
    from sklearn.pipeline import FeatureUnion, make_pipeline
    from sklearn.preprocessing import MinMaxScaler, StandardScaler

    linear = linear_model.LogisticRegression
    return {
        "linear": linear(),
        "ridge": linear_model.Ridge(),
        "forest": ensemble.RandomForestClassifier(3),
        "regression forest": ensemble.RandomForestRegressor(3),
        "boosting": ensemble.GradientBoostingClassifier(n_estimators=3),
        "regression boosting": ensemble.GradientBoostingRegressor(n_estimators=3),
        "hist": ensemble.HistGradientBoostingClassifier(max_iter=3),
        "hist regression": ensemble.HistGradientBoostingRegressor(max_iter=3),
        "isolation": ensemble.IsolationForest(n_estimators=3),
        "tree": tree.DecisionTreeRegressor(),
        "support": svm.SVC(),
        "support regression": svm.SVR(),
        "neighbours": neighbors.KNeighborsClassifier(),
        "bayes": naive_bayes.GaussianNB(),
        "clusters": cluster.KMeans(2, n_init=1),
        "scaled": make_pipeline(StandardScaler(), linear()),
        "searched": GridSearchCV(make_pipeline(MinMaxScaler(), linear()), {"logisticregression__C": [1.0]}, cv=2),
        "calibrated": CalibratedClassifierCV(linear(), cv=2),
        "voting": ensemble.VotingClassifier([("a", linear()), ("b", tree.DecisionTreeClassifier())]),
        "stacking": ensemble.StackingClassifier([("a", linear())], cv=2),
        "target": TransformedTargetRegressor(linear_model.LinearRegression(), transformer=StandardScaler()),
        "several": MultiOutputClassifier(linear()),
        "union": make_pipeline(FeatureUnion([("a", StandardScaler()), ("b", MinMaxScaler())]), linear()),
    }


NAMES = [
    "linear",
    "ridge",
    "forest",
    "regression forest",
    "boosting",
    "regression boosting",
    "hist",
    "hist regression",
    "isolation",
    "tree",
    "support",
    "support regression",
    "neighbours",
    "bayes",
    "clusters",
    "scaled",
    "searched",
    "calibrated",
    "voting",
    "stacking",
    "target",
    "several",
    "union",
]


@pytest.mark.parametrize("named", [True, False], ids=["named", "rows"])
@pytest.mark.parametrize("name", NAMES)
def test_an_estimator_answers_the_made_example_as_described(signed, saved, name, named):
    numpy, pandas = pytest.importorskip("numpy"), pytest.importorskip("pandas")
    random = numpy.random.default_rng(1)
    data = pandas.DataFrame({"b": random.normal(2, 1, 80), "a": random.normal(0, 3, 80)})
    target = (data["a"] > 0).astype("int64").to_numpy()
    if name == "several":
        target = numpy.stack([target, 1 - target], 1)
    elif name in ("ridge", "regression forest", "regression boosting", "tree", "hist regression", "target"):
        target = target + 0.5
    elif name == "support regression":
        target = target + data["b"].to_numpy()
    model = models()[name].fit(data if named else data.to_numpy(), target)
    endpoint, signature = signed(**saved(model))
    if named:
        assert [spec["name"] for spec in signature["inputs"]] == ["b", "a"]
        body = {spec["name"]: sample(spec) for spec in signature["inputs"]}
        lacking = {**body, "a": None}
        optional = signature["inputs"][1].get("optional", False)
    else:
        (spec,) = signature["inputs"]
        assert (spec["name"], spec["datatype"], spec["shape"]) == ("input-0", "FP64", [-1, 2])
        assert signature["body_schema"]["items"]["minItems"] == 2
        body = signature["example"]
        assert signature["example_of"] == "made"
        lacking = [[body[0][0], None]]
        optional = spec.get("optional", False)
    check_output(signature, endpoint.value(body))
    # Rows without names reach scikit-learn as a list, in which it accepts no null.
    if named or not optional:
        assert (endpoint.ask(lacking).status == 200) == optional
    for method in ("predict_proba", "decision_function", "score_samples"):
        if callable(getattr(model, method, None)):
            endpoint, signature = signed(**saved(model), extra={"method": method})
            answer = endpoint.value(body)
            if "shape" in signature["outputs"][0]:
                check_output(signature, answer)


def test_a_model_of_texts_takes_texts(signed, saved):
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.naive_bayes import MultinomialNB
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(TfidfVectorizer(), MultinomialNB()).fit(["good", "bad"], ["pos", "neg"])
    endpoint, signature = signed(**saved(model))
    assert signature["inputs"] == [{"name": "input-0", "datatype": "BYTES"}]
    assert signature["body_schema"] == {"type": "array", "minItems": 1, "items": {"type": "string"}}
    check_output(signature, endpoint.value(signature["example"]))


def test_unknown_steps_are_not_guessed(signed, saved):
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    data, labels = table()
    model = make_pipeline(FunctionTransformer(numbers), LogisticRegression()).fit(data, labels)
    _, signature = signed(**saved(model))
    assert all(set(spec) == {"name", "shape"} for spec in signature["inputs"])
    rows = make_pipeline(FunctionTransformer(numpy_numbers), LogisticRegression()).fit(data.to_numpy(), labels)
    _, signature = signed(**saved(rows))
    assert "example" not in signature
    assert "datatype" not in signature["inputs"][0]


def numbers(data):
    return data[["rooms"]]


def numpy_numbers(data):
    return data[:, 2:3].astype(float)


@pytest.mark.parametrize("kind", ["xgb classifier", "xgb booster", "xgb multi", "lgb classifier", "lgb booster"])
@pytest.mark.parametrize("named", [True, False], ids=["named", "rows"])
def test_boosters(signed, saved, tmp_path, kind, named):
    pandas = pytest.importorskip("pandas")
    xgboost, lightgbm = pytest.importorskip("xgboost"), pytest.importorskip("lightgbm")
    data, labels = table()
    data = data[["kind", "size", "rooms"]].assign(kind=data["kind"].astype("category"), flag=labels == 1)
    if not named:
        data = data[["size", "rooms"]].to_numpy(float)
    if kind == "xgb multi":
        labels = pandas.Series(range(len(labels))).mod(3).to_numpy()
    if kind.startswith("xgb"):
        model = xgboost.XGBClassifier(n_estimators=2, enable_categorical=True).fit(data, labels)
        file = tmp_path / "model.ubj"
        model.save_model(file)
        spec = {"engine": "xgboost", "model_path": str(file)} if kind == "xgb booster" else saved(model)
    else:
        model = lightgbm.LGBMClassifier(n_estimators=2, verbosity=-1).fit(data, labels)
        file = tmp_path / "model.txt"
        model.booster_.save_model(file)
        spec = {"engine": "lightgbm", "model_path": str(file)} if kind == "lgb booster" else saved(model)
    endpoint, signature = signed(**spec)
    inputs = {one["name"]: one for one in signature["inputs"]}
    if named:
        assert inputs["kind"]["categories"] == ["a", "b", "c"]
        assert inputs["kind"].get("open", False) == kind.startswith("lgb")
        assert all(one["optional"] for one in inputs.values())
        if kind.startswith("xgb"):
            kinds = [inputs[name]["datatype"] for name in ("kind", "size", "rooms", "flag")]
            assert kinds == ["BYTES", "FP64", "FP64", "BOOL"]
        body = {name: sample(one) for name, one in inputs.items()}
    else:
        assert inputs["input-0"]["shape"] == [-1, 2]
        body = signature["example"]
    check_output(signature, endpoint.value(body))
    if kind in ("xgb classifier", "xgb multi", "lgb classifier"):
        endpoint, signature = signed(**spec, extra={"method": "predict_proba"})
        check_output(signature, endpoint.value(body))


def test_code_in_front_of_a_model_makes_the_body_unknown(signed, saved):
    from sklearn.linear_model import LogisticRegression

    data, labels = table()
    spec = saved(LogisticRegression().fit(data[["rooms"]], labels))
    code = """
        class Preprocess:
            def preprocess(self, body, state, collect_custom_statistics_fn=None):
                return [[body["x"]]]
    """
    endpoint, signature = signed(code, **spec)
    assert endpoint.value({"x": 1}) in ([0], [1])
    assert signature["preprocessed"]
    assert [one["name"] for one in signature["inputs"]] == ["rooms"]
    assert "body_schema" not in signature
    assert "example" not in signature
    assert signature["answer_schema"] == {"type": "array", "items": {"type": "integer"}}
    hinted = """
        class Preprocess:
            def preprocess(self, body: "dict[str, float]", state, collect_custom_statistics_fn=None) -> list:
                return [[body["x"]]]
            def postprocess(self, data, state, collect_custom_statistics_fn=None):
                return 1
    """
    _, signature = signed(hinted, **spec)
    assert signature["postprocessed"]
    assert "answer_schema" not in signature
    assert signature["body_schema"] == {"type": "object", "additionalProperties": {"type": "number"}}
    assert signature["source"] == "model, type hints"


HINTED = """
    from __future__ import annotations
    import dataclasses, enum, typing
    from typing import Any, Dict, List, Literal, NamedTuple, NewType, Optional, TypedDict, Union

    class Colour(enum.Enum):
        red = "r"
        blue = "b"

    class Base(TypedDict):
        width: float

    class House(Base, total=False):
        colour: Colour
        owner: Optional[str]

    @dataclasses.dataclass
    class Order:
        name: str
        sizes: List[int]
        house: House
        parts: Dict[str, "Order"] = dataclasses.field(default_factory=dict)
        urgent: bool = False

    class Point(NamedTuple):
        x: int
        y: float

    Meters = NewType("Meters", float)

    class Preprocess:
        def preprocess(self, body: BODY, state: MissingName, collect_custom_statistics_fn=None) -> AnotherMissingName:
            return body
        def process(self, data, state, collect_custom_statistics_fn=None) -> ANSWER:
            return data
"""

ORDER = {
    "title": "Order",
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "sizes": {"type": "array", "items": {"type": "integer"}},
        "house": {
            "title": "House",
            "type": "object",
            "properties": {
                "width": {"type": "number"},
                "colour": {"enum": ["r", "b"]},
                "owner": {"type": ["string", "null"]},
            },
            "required": ["width"],
        },
        "parts": {"type": "object"},  # of itself
        "urgent": {"type": "boolean", "default": False},
    },
    "required": ["name", "sizes", "house"],
}
HINTS = [
    ("dict", {"type": "object"}),
    ("list", {"type": "array"}),
    ("List[float]", {"type": "array", "items": {"type": "number"}}),
    ("list[list[float]]", {"type": "array", "items": {"type": "array", "items": {"type": "number"}}}),
    ("Union[bytes, dict]", {"type": "object"}),
    ("bytes", None),
    ("Any", None),
    ("Nowhere", None),
    ("1 / 0", None),
    ("__import__('sys').exit(3)", None),
    ("int | None", {"type": ["integer", "null"]}),
    ("Optional[List[str]]", {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}]}),
    ("Literal['a', 1]", {"enum": ["a", 1]}),
    ("typing.Sequence[Meters]", {"type": "array", "items": {"type": "number"}}),
    ("typing.Mapping[str, bool]", {"type": "object", "additionalProperties": {"type": "boolean"}}),
    (
        "tuple[int, str]",
        {
            "type": "array",
            "prefixItems": [{"type": "integer"}, {"type": "string"}],
            "minItems": 2,
            "maxItems": 2,
        },
    ),
    (
        "Point",
        {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "number"}], "minItems": 2, "maxItems": 2},
    ),
    ("Order", ORDER),
    ("House", ORDER["properties"]["house"]),
    ("Preprocess", None),
    ("Colour", {"enum": ["r", "b"]}),
]


@pytest.mark.parametrize(("hint", "schema"), HINTS, ids=[hint for hint, _ in HINTS])
def test_type_hints_become_a_schema(signed, hint, schema):
    import sys

    if sys.version_info < (3, 10) and "|" in hint:
        pytest.skip("written otherwise before Python 3.10")
    loaded, signature = signed(HINTED.replace("BODY", hint).replace("ANSWER", "List[int]"))
    assert (signature or {}).get("body_schema") == schema
    assert signature["answer_schema"] == {"type": "array", "items": {"type": "integer"}}
    assert signature["source"] == "type hints"
    assert loaded.value([1]) == [1]
    _, signature = signed(HINTED.replace("BODY", "int").replace("ANSWER", hint))
    assert signature.get("answer_schema") == schema
    json.dumps(signature)


def test_an_example_is_made_of_hints_that_tell_enough(signed):
    _, signature = signed(HINTED.replace("BODY", "Order").replace("ANSWER", "Any"))
    assert signature["example"] == {"name": "text", "sizes": [0], "house": {"width": 0.0}, "urgent": False}
    assert signature["example_of"] == "made"
    _, signature = signed(HINTED.replace("BODY", "dict").replace("ANSWER", "Any"))
    assert "example" not in signature


def test_pydantic_models_tell_their_own_schema(signed):
    pytest.importorskip("pydantic")
    code = """
        from pydantic import BaseModel, Field

        class Room(BaseModel):
            area: float = Field(gt=0, description="square metres")
            inner: "list[Room]" = []

        class House(BaseModel):
            rooms: list[Room]
            city: str = "Bern"
            model_config = {"json_schema_extra": EXTRA}

        class Preprocess:
            def process(self, data: House, state, collect_custom_statistics_fn=None) -> list[Room]:
                return House(**data).rooms
    """
    loaded, signature = signed(code.replace("EXTRA", "{}"))
    room = {
        "title": "Room",
        "type": "object",
        "properties": {
            "area": {"title": "Area", "type": "number", "exclusiveMinimum": 0, "description": "square metres"},
            "inner": {"title": "Inner", "type": "array", "default": [], "items": {}},
        },
        "required": ["area"],
    }
    assert signature["body_schema"]["properties"]["rooms"]["items"] == room
    assert "$" not in json.dumps(signature["body_schema"])
    assert signature["answer_schema"]["items"]["properties"]["area"]["type"] == "number"
    assert signature["example"] == {"rooms": [{"area": 1, "inner": []}], "city": "Bern"}
    assert loaded.ask(signature["example"]).status == 200
    given = {"rooms": [{"area": 3}], "city": "Zug"}
    _, signature = signed(code.replace("EXTRA", f'{{"examples": [{given}]}}'))
    assert (signature["example"], signature["example_of"]) == (given, "code")


def test_fields_may_have_the_names_of_keywords(signed):
    pytest.importorskip("pydantic")
    _, signature = signed(
        """
        from pydantic import BaseModel

        class Inner(BaseModel):
            x: int

        class Loss(BaseModel):
            definitions: int
            discriminator: float
            default: Inner
            enum: list[Inner]

        class Preprocess:
            def process(self, data: Loss, state, collect_custom_statistics_fn=None): return 1
        """
    )
    schema, inner = signature["body_schema"], {"x": 0}
    assert list(schema["properties"]) == schema["required"] == ["definitions", "discriminator", "default", "enum"]
    assert signature["example"] == {"definitions": 0, "discriminator": 0.0, "default": inner, "enum": [inner]}
    assert "$ref" not in json.dumps(schema)


def test_a_schema_that_is_too_large_ends_in_any_json(signed):
    pytest.importorskip("pydantic")
    _, signature = signed(
        """
        from pydantic import create_model

        Level = create_model("Level", **{f"kind_{n}": (int, 1) for n in range(9)})
        for _ in range(5):
            Level = create_model("Level", **{f"part_{n}": (Level, ...) for n in range(9)})

        class Preprocess:
            def process(self, data: Level, state, collect_custom_statistics_fn=None): return 1
        """
    )

    def check(schema):
        assert isinstance(schema.get("title", ""), str)
        assert schema.get("type", "object") in ("object", "integer")
        assert all(isinstance(name, str) for name in schema.get("required", ()))
        for part in schema.get("properties", {}).values():
            check(part)

    schema = signature["body_schema"]
    check(schema)
    assert schema["title"] == "Level"
    assert schema["required"] == [f"part_{n}" for n in range(9)]


@pytest.mark.parametrize(
    ("hint", "example"),
    [
        ("Annotated[list[float], Field(min_length=784)]", [0.0] * 784),
        ("Annotated[list[Annotated[list[list[int]], Field(min_length=224)]], Field(min_length=224)]", None),
        ("Annotated[str, Field(min_length=10**9)]", None),
        ("Annotated[int, Field(json_schema_extra={'minimum': '3'})]", None),
    ],
)
def test_an_example_fits_its_schema_or_there_is_none(signed, hint, example):
    pytest.importorskip("pydantic")
    _, signature = signed(
        f"""
        from typing import Annotated
        from pydantic import BaseModel, Field

        class Body(BaseModel):
            values: {hint}

        class Preprocess:
            def process(self, data: Body, state, collect_custom_statistics_fn=None): return 1
        """
    )
    assert signature["body_schema"]["required"] == ["values"]
    assert signature.get("example") == (None if example is None else {"values": example})


def test_a_model_of_very_many_columns_is_described_in_brief(signed, saved):
    numpy = pytest.importorskip("numpy")
    sparse = pytest.importorskip("scipy.sparse")
    from sklearn.linear_model import LogisticRegression

    width = 1 << 18
    rows = sparse.csr_matrix(([1.0, 1.0], ([0, 1], [0, 7])), shape=(2, width))
    _, signature = signed(**saved(LogisticRegression(max_iter=1).fit(rows, numpy.array([0, 1]))))
    assert signature["inputs"] == [{"name": "input-0", "shape": [-1, width]}]
    assert signature["outputs"][0]["datatype"] == "INT64"
    assert "example" not in signature


def test_code_without_hints_has_no_signature(signed):
    _, signature = signed("class Preprocess:\n    def process(self, data, state, collect=None): return data")
    assert signature is None


def test_later_loads_do_not_find_it_out_again(load, saved):
    from sklearn.linear_model import LogisticRegression

    data, labels = table()
    spec = saved(LogisticRegression().fit(data[["rooms"]], labels))
    assert load(None, **spec).endpoint.signature is None


def test_a_signature_that_does_not_fit_a_message_is_cut(signed, saved):
    from sklearn.preprocessing import OneHotEncoder

    data, _ = table()
    spec = saved(OneHotEncoder().fit(data[["text"]].assign(text=[f"word {n}" * 20 for n in range(len(data))])))
    _, whole = signed(**spec, extra={"method": "transform"})
    assert len(whole["inputs"][0]["categories"]) == len(data)
    _, cut = signed(**spec, extra={"method": "transform"}, max_frame=8 << 10)
    assert cut["inputs"] == [{"name": "text", "shape": [-1, 1], "datatype": "BYTES", "open": True}]
    _, none = signed(**spec, extra={"method": "transform"}, max_frame=200)
    assert none is None


def test_a_model_that_answers_to_every_name(signed):
    code = """
        from unittest.mock import MagicMock

        class Preprocess:
            def load(self, path):
                model = MagicMock()
                model.predict = lambda data: data
                return model
    """
    loaded, _ = signed(code, engine="sklearn")
    assert loaded.value([[1]]) == [[1]]


def test_code_that_raises_for_names_it_does_not_know_is_loaded(signed):
    import child

    code = """
        class Model:
            def predict(self, data): return data

        class Preprocess:
            def __getattr__(self, name): return {}[name]
            def load(self, path): return Model()
            def preprocess(self, body, state, collect_custom_statistics_fn=None): return body
            def postprocess(self, data, state, collect_custom_statistics_fn=None): return data
    """
    sent = []
    loaded, _ = signed(code, engine="sklearn")
    loaded.endpoint.took = 0.0
    child.ready(type("Link", (), {"send": lambda _, frame: sent.append(frame)})(), loaded.endpoint, template=False)
    assert b'"methods": ["preprocess", "postprocess"]' in sent[0]
