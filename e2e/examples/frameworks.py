"""The frameworks' own answers: the requests of each example, and the right answers.

The registered model is fetched through the ClearML SDK and asked here in plain Python, with code of
our own, so nothing of what is compared went through the service or through an example's preprocess
code.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any, Callable, NamedTuple

Answerer = Callable[[Any], Any]


class Framework(NamedTuple):
    """The requests of an endpoint, and the function that makes an answerer from a model's file."""

    requests: Callable[[], list]
    load: Callable[[Path], Answerer]
    # The name of the model that the framework itself loads, which the same training has registered.
    original: str = ""


def framework_of(url: str) -> Framework:
    """The framework behind an endpoint, by how its name begins."""
    for prefix, framework in FRAMEWORKS.items():
        if url.startswith(prefix):
            return framework
    raise KeyError(
        f"no framework is known to answer for the endpoint {url!r}; add it to {Path(__file__).name}"
    )


@cache
def model_file(model_id: str) -> Path:
    """The file of a registered model, or the unpacked folder of one that is a zip."""
    from clearml import Model

    model = Model(model_id=model_id)
    return Path(model.get_local_copy(extract_archive=model.url.endswith(".zip"), raise_on_error=True))


@cache
def answerer(url: str, model_id: str) -> Answerer:
    """Return a function with the right answers of the endpoint for that model."""
    framework = framework_of(url)
    if framework.original:
        model_id = registered_with(model_id, framework.original)
    return framework.load(model_file(model_id) if model_id else Path())


def registered_with(model_id: str, name: str) -> str:
    """The model of a name that the training of another model has registered."""
    from clearml import Model, Task

    outputs = Task.get_task(task_id=Model(model_id=model_id).task).models["output"]
    return next(model.id for model in outputs if model.name == name)


# scikit-learn


def wine_requests() -> list:
    from sklearn.datasets import load_wine

    wine = load_wine()
    return [dict(zip(wine.feature_names, row)) for row in wine.data.tolist()]


def wine(path: Path) -> Answerer:
    import joblib

    model = joblib.load(path)
    return lambda body: {"y": model.predict([list(body.values())]).tolist()}


def diabetes_requests() -> list:
    from sklearn.datasets import load_diabetes

    patients = load_diabetes(scaled=False)
    columns = [patients.feature_names.index(name) for name in ("bmi", "s5")]
    rows = [*patients.data[::4, columns].tolist(), [1, 2]]  # the last is the original's request
    return [{"x0": x0, "x1": x1} for x0, x1 in rows]


def diabetes(path: Path) -> Answerer:
    import joblib

    model = joblib.load(path)
    return lambda body: {"y": model.predict([[body["x0"], body["x1"]]]).tolist()}


def tumour_requests() -> list:
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    names = ("radius", "texture", "perimeter", "area", "smoothness", "compactness", "concavity")
    columns = [list(data.feature_names).index(f"mean {name}") for name in names]
    return [dict(zip(names, row)) for row in data.data[::10, columns].tolist()]


def tumours(path: Path) -> Answerer:
    import joblib

    model = joblib.load(path)
    return lambda body: {"y": int(model.predict([list(body.values())])[0])}


# XGBoost and LightGBM


def iris_requests() -> list:
    from sklearn.datasets import load_iris

    rows = [*load_iris().data.tolist(), [1, 2, 3, 4]]  # the last is the original's request
    return [{f"x{i}": value for i, value in enumerate(row)} for row in rows]


def iris_xgboost(path: Path) -> Answerer:
    import xgboost

    booster = xgboost.Booster(model_file=bytearray(path.read_bytes()))  # no guess by name
    names = list(booster.feature_names or ()) or None

    def answer(body: dict) -> dict:
        matrix = xgboost.DMatrix([[body[f"x{i}"] for i in range(4)]], feature_names=names)
        return {"y": booster.predict(matrix).tolist()}

    return answer


def iris_lightgbm(path: Path) -> Answerer:
    import lightgbm

    booster = lightgbm.Booster(model_file=str(path))
    return lambda body: {"y": int(booster.predict([[body[f"x{i}"] for i in range(4)]]).argmax())}


# Custom code


def custom_requests() -> list:
    columns = ("alcohol", "flavanoids", "color_intensity")
    return [
        *({"features": [row[name] for name in columns]} for row in wine_requests()),
        {"features": [1, 2, 3]},
    ]


def custom(path: Path) -> Answerer:
    import joblib

    model = joblib.load(path)
    return lambda body: {"predict": model.predict([body["features"]]).tolist()}


def patient_requests() -> list:
    singles = [{"patients": [patient]} for patient in range(0, 569, 7)]
    return [*singles, {"patients": list(range(569))}, {"patients": [17, 21]}]


def patients(path: Path) -> Answerer:
    import joblib
    from sklearn.datasets import load_breast_cancer

    model, measured = joblib.load(path / "model.pkl"), load_breast_cancer().data
    return lambda body: {"malignant": model.predict_proba(measured[body["patients"]])[:, 1].tolist()}


def text_requests() -> list:
    texts = [
        "Open a socket and connect to the mail server",
        "Return the square root of a number",
        "Delete a directory tree and everything in it",
        "Wait until the other thread has released the lock",
        "Decode the header of an HTTP response",
        "The median of the sample, which is the middle value",
        "Write a row to the CSV file",
        "Start a process and wait for it to end",
        "¿Dónde está la biblioteca? 図書館はどこですか",
        "",
        "word " * 1000,
    ]
    return [*({"text": text} for text in texts), {"text": texts}]


def text_topics(path: Path) -> Answerer:
    """WordLlama itself embeds, and the head is back in scikit-learn, which trained it; one text at a time."""
    import numpy as np
    import wordllama
    from safetensors.numpy import load_file
    from sklearn.linear_model import LogisticRegression

    config = json.loads((path / "config.json").read_text())
    weights = load_file(path / "model.safetensors")
    head = LogisticRegression()
    head.coef_ = weights["classifier.weight"].astype(float)
    head.intercept_ = weights["classifier.bias"].astype(float)
    head.classes_ = np.arange(len(head.intercept_))
    language_model = wordllama.WordLlama.load(
        cache_dir=Path(wordllama.__file__).parent, disable_download=True
    )
    language_model.tokenizer.enable_truncation(max_length=512)

    def rank(text: str) -> list:
        scores = head.predict_proba(language_model.embed([text]))[0]
        ranked = sorted(range(len(scores)), key=lambda i: -scores[i])
        return [{"label": config["id2label"][str(i)], "score": float(scores[i])} for i in ranked]

    def answer(body: dict) -> dict:
        text = body["text"]
        return {"data": [rank(one) for one in ([text] if isinstance(text, str) else text)]}

    return answer


# No model


def any_requests() -> list:
    return [{"x0": 1, "x1": 2}, [], [1, 2.5, None, True], {"ä": {"deep": ["y"]}}, 7, 0.1, False]


def itself(_path: Path) -> Answerer:
    return lambda body: body


# Digits in images, by PyTorch and Keras


@cache
def digit_requests() -> list:
    """Digits of the tutorials' data, drawn otherwise than for the training: as addresses, and as images."""
    import io
    import tempfile

    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    folder, bodies = Path(tempfile.mkdtemp(prefix="digits-")), []
    for number, pixels in enumerate(load_digits().images[::60]):
        image = Image.fromarray((pixels * 255 / 16).astype(np.uint8)).resize((40, 40)).convert("RGB")
        if number % 2:
            path = folder / f"{number}.png"
            image.save(path)
            bodies.append({"url": str(path)})
        else:
            data = io.BytesIO()
            image.save(data, "PNG")
            bodies.append(data.getvalue())
    return bodies


def pixels_of(body: Any) -> Any:
    """An image as the tutorials' models take it."""
    import io

    import numpy as np
    from PIL import Image

    image = Image.open(io.BytesIO(body) if isinstance(body, bytes) else body["url"])
    return np.asarray(image.convert("RGB").convert("L").resize((28, 28)), dtype=np.float32)[np.newaxis]


def digits_torch(path: Path) -> Answerer:
    import torch

    network = torch.jit.load(str(path))
    return lambda body: {"digit": int(network(torch.tensor(pixels_of(body))).argmax())}


def digits_keras(path: Path) -> Answerer:
    import os

    os.environ.setdefault("KERAS_BACKEND", "jax")  # as the tutorial trains it
    import keras

    network = keras.models.load_model(path)
    return lambda body: {"digit": int(network.predict(pixels_of(body), verbose=0).argmax())}


# The tutorials that make examples-engines runs: with large frameworks, or with servers of their own.
APART = ("chat", "embeddings", "keras", "onnx-ocr", "pytorch", "vllm")

FRAMEWORKS = {
    "test_model_pytorch": Framework(digit_requests, digits_torch, "train pytorch model - serving_model"),
    "test_model_keras": Framework(digit_requests, digits_keras, "train keras model - serving_model"),
    "test_model_sklearn": Framework(wine_requests, wine),
    "test_model_retrain": Framework(tumour_requests, tumours),
    "test_model_pipeline": Framework(wine_requests, itself),  # answered by pipeline_answerer
    "test_model_ensemble": Framework(diabetes_requests, diabetes),
    "test_model_xgb": Framework(iris_requests, iris_xgboost),
    "test_model_lgbm": Framework(iris_requests, iris_lightgbm),
    "test_model_auto": Framework(iris_requests, iris_lightgbm),  # the original's name
    "test_model_custom_async": Framework(patient_requests, patients),
    "test_model_custom": Framework(custom_requests, custom),
    "transformer_model": Framework(text_requests, text_topics),
    "test_preprocess_template": Framework(any_requests, itself),
}


def pipeline_answerer(a: Answerer, b: Answerer) -> Answerer:
    """What joins two answers like examples/pipeline."""
    return lambda body: {"y": 0.5 * a(body)["y"][0] + 0.5 * b(body)["y"][0]}


def same(one: Any, other: Any) -> bool:
    """Whether two answers are the same; numbers may differ by what rounding does (1e-6 of their size)."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= 1e-6 * max(1.0, abs(one), abs(other))
    return type(one) is type(other) and one == other
