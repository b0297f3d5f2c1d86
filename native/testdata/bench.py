"""Makes the models of the benchmarks, 100 trees each: python bench.py FOLDER [--times].

Writes NAME.native and rows.bin (4096 rows of 20 float64). With --times it prints the processor time per row
in nanoseconds, for 1 row and for 64 rows at once: of the library, of ONNX Runtime and of lignum, as far as
they are installed, in one thread.
"""

import json
import os
import sys
import time
import warnings

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "extract", "python"))
warnings.simplefilter("ignore")

import numpy as np  # noqa: E402
from nativemodel import extract  # noqa: E402

COLUMNS = 20


def data(classes=0, rows=5000, categories=False):
    random = np.random.default_rng(0)
    x = random.normal(size=(rows, COLUMNS))
    if categories:
        x[:, 10:14] = random.integers(0, 24, size=(rows, 4))
    score = x[:, :6] @ np.array([1, -1, 0.7, 0.5, 0.3, 0.2]) + np.sin(3 * x[:, 6]) + x[:, 7] * x[:, 8]
    score += np.sin(x[:, 10]) * (1 if categories else 0.1) + 0.5 * random.normal(size=rows)
    if classes:
        return x, np.digitize(score, np.quantile(score, np.linspace(0, 1, classes + 1)[1:-1]))
    return x, score


def models():
    """Yield names, models and the method that is measured."""
    from sklearn import ensemble

    yield "rf_clf", ensemble.RandomForestClassifier(random_state=0).fit(*data(3)), "predict_proba"
    yield "rf_reg", ensemble.RandomForestRegressor(random_state=0).fit(*data()), "predict"
    yield "et_clf", ensemble.ExtraTreesClassifier(random_state=0).fit(*data(3)), "predict_proba"
    yield "gb_bin", ensemble.GradientBoostingClassifier(random_state=0).fit(*data(2)), "predict_proba"
    yield "hgb_bin", ensemble.HistGradientBoostingClassifier(random_state=0).fit(*data(2)), "predict_proba"
    yield "iforest", ensemble.IsolationForest(random_state=0).fit(data()[0]), "score_samples"
    import xgboost

    yield "xgb_bin", xgboost.XGBClassifier(n_jobs=1).fit(*data(2)), "predict_proba"
    yield "xgb_softprob", xgboost.XGBClassifier(n_jobs=1).fit(*data(3)), "predict_proba"
    kinds = ["c" if 10 <= i < 14 else "q" for i in range(COLUMNS)]
    x, y = data(2, categories=True)
    model = xgboost.XGBClassifier(n_jobs=1, enable_categorical=True, feature_types=kinds, tree_method="hist")
    yield "xgb_cat", model.fit(x, y), "predict_proba"
    import lightgbm

    few = {"n_jobs": 1, "verbose": -1}
    yield "lgb_bin", lightgbm.LGBMClassifier(**few).fit(*data(2)), "predict_proba"
    yield "lgb_reg", lightgbm.LGBMRegressor(**few).fit(*data()), "predict"
    x, y = data(3, categories=True)
    yield (
        "lgb_mc",
        lightgbm.LGBMClassifier(**few).fit(x, y, categorical_feature=[10, 11, 12, 13]),
        "predict_proba",
    )
    x, y = data(2, categories=True)
    yield (
        "lgb_cat",
        lightgbm.LGBMClassifier(**few).fit(x, y, categorical_feature=[10, 11, 12, 13]),
        "predict_proba",
    )


def rows():
    random = np.random.default_rng(1)
    x = random.normal(size=(4096, COLUMNS))
    x[:, 10:14] = random.integers(0, 24, size=(4096, 4))
    return x


def nanoseconds(call, x, batch):
    """Return the smallest processor time per row of several rounds."""
    best = float("inf")
    for _ in range(5):
        begin, count, at = time.process_time(), 0, 0
        while (spent := time.process_time() - begin) < 0.1 or count == 0:
            call(x[at : at + batch])
            at = (at + batch) % (len(x) - batch)
            count += batch
        best = min(best, spent / count)
    return round(best * 1e9)


def others(name, model, folder):
    """Yield the other engines that can compute the model, as functions of rows."""
    try:
        yield "onnxruntime", onnx(name, model)
    except Exception as error:
        print(name, "onnxruntime:", repr(error)[:200], file=sys.stderr)
    if name.startswith(("xgb", "lgb")):
        try:
            import lignum

            path = os.path.join(folder, name + (".json" if name.startswith("xgb") else ".txt"))
            (model.get_booster() if name.startswith("xgb") else model.booster_).save_model(path)
            yield "lignum", lignum.load(path).predict
        except Exception as error:
            print(name, "lignum:", repr(error)[:200], file=sys.stderr)


def onnx(name, model):
    import onnxruntime

    kind = ("input", None)
    if name.startswith(("xgb", "lgb")):
        import onnxmltools
        from onnxmltools.convert.common.data_types import FloatTensorType

        kind = [("input", FloatTensorType([None, COLUMNS]))]
        convert = onnxmltools.convert_xgboost if name.startswith("xgb") else onnxmltools.convert_lightgbm
        graph = convert(model, initial_types=kind, **({"zipmap": False} if name.startswith("lgb") else {}))
    else:
        import skl2onnx
        from skl2onnx.common.data_types import FloatTensorType

        options = {} if name in ("rf_reg", "iforest") else {type(model): {"zipmap": False}}
        kind = [("input", FloatTensorType([None, COLUMNS]))]
        graph = skl2onnx.convert_sklearn(
            model, initial_types=kind, options=options, target_opset={"": 17, "ai.onnx.ml": 3}
        )
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )
    return lambda x: session.run(None, {"input": x.astype(np.float32)})


def main():
    folder, times = sys.argv[1], "--times" in sys.argv
    x = rows()
    x.tofile(os.path.join(folder, "rows.bin"))
    for name, model, method in models():
        extract(model, os.path.join(folder, name + ".native"))
        line = {"name": name, "method": method}
        if times:
            if hasattr(model, "n_jobs"):
                model.n_jobs = 1
            engines = [("library", getattr(model, method)), *others(name, model, folder)]
            line["times"] = {
                engine: [nanoseconds(call, x, batch) for batch in (1, 64)] for engine, call in engines
            }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
