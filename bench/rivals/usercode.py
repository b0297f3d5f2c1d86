"""The common part of every server: the same user code with the same model files.

BENCH_ROOT names the checkout, BENCH_MODELS the folder of the models, BENCH_WORKERS how many
processes a server may start, BENCH_CASES the cases that it serves: no more is loaded.
"""

import importlib.util
import os
from pathlib import Path
from typing import Any

ROOT = Path(os.environ["BENCH_ROOT"])
MODELS = Path(os.environ["BENCH_MODELS"])
WORKERS = int(os.environ["BENCH_WORKERS"])
CASES = set(os.environ["BENCH_CASES"].split(","))


def code(name: str) -> Any:
    """The Preprocess object of bench/code/<name>."""
    spec = importlib.util.spec_from_file_location(
        f"code_{name}", ROOT / "bench/code" / name / "preprocess.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Preprocess()


def model(name: str) -> Any:
    """A model by its file's name without the suffix."""
    if name == "xgb":
        import xgboost

        booster = xgboost.Booster()
        booster.load_model(MODELS / "xgb.json")
        return booster
    import joblib

    return joblib.load(MODELS / f"{name}.pkl")


# case -> user code and model
ENDPOINTS = {
    "null": ("null", None),
    "lr": ("lr", "lr"),
    "lr_batched": ("lr", "lr"),
    "rf": ("rows", "rf"),
    "rf_batched": ("rows", "rf"),
    "xgb": ("xgb", "xgb"),
    "json": ("json", None),
    "binary": ("binary", None),
    "burn": ("burn", None),
}


def endpoint(case: str) -> Any:
    """A function from a request's content to its answer, for the cases that do not wait."""
    name, model_name = ENDPOINTS[case]
    user = code(name)
    if model_name is None:
        return lambda data: user.process(data, {})
    predict = model(model_name).predict

    def answer(data: Any) -> Any:
        state: dict = {}
        return user.postprocess(predict(user.preprocess(data, state)), state)

    return answer
