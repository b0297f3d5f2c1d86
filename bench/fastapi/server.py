"""The plain Python server that our endpoints are measured against.

One FastAPI application, written the way its documentation shows, with the same user code: the
sklearn route runs examples/sklearn/preprocess.py around the same model file, the null route
bench/null/preprocess.py around nothing. The handlers are coroutines: for work this short that is
FastAPI's fastest form (a plain `def` would cost a hand-over to a thread for every request).

    BENCH_MODEL=sklearn-model.pkl BENCH_ROOT=. uvicorn server:app --loop uvloop --http httptools
"""

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import joblib
from fastapi import FastAPI, HTTPException

root = Path(os.environ["BENCH_ROOT"])


def user_code(path: Path) -> ModuleType:
    """Runs a preprocess file as a module."""
    spec = importlib.util.spec_from_file_location(path.parent.name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


model = joblib.load(os.environ["BENCH_MODEL"])
sklearn_code = user_code(root / "examples/sklearn/preprocess.py").Preprocess()
null_code = user_code(root / "bench/null/preprocess.py").Preprocess()
app = FastAPI()


@app.post("/serve/sklearn")
async def sklearn(body: dict) -> dict:
    state: dict = {}
    try:
        data = sklearn_code.preprocess(body, state, None)
        return sklearn_code.postprocess(model.predict(data), state, None)
    except ValueError as error:
        raise HTTPException(422, str(error)) from error


@app.post("/serve/null")
async def null(body: dict) -> dict:
    return null_code.process(body, {}, None)
