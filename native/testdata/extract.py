"""Extracts a model file as a worker loads it: python extract.py ENGINE METHOD MODEL OUT PROOF ROWS.

Prints one line of JSON: {"model": ..., "methods": [...]} or {"refused": reason}.
"""

import json
import os
import sys
import warnings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the libraries' threads wait for each other, also for one row
ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
sys.path[:0] = [os.path.join(ROOT, "extract", "python"), os.path.join(ROOT, "..", "worker", "runtime")]
warnings.simplefilter("ignore")

import engines  # noqa: E402
from nativemodel import RefusedError, extract  # noqa: E402


def main(engine, method, path, out, proof, rows):
    model = engines.load_model(engines.engine_named(engine), path, "test", method)
    try:
        description = extract(model, out, proof, 0, int(rows))
    except RefusedError as refused:
        print(json.dumps({"refused": str(refused)}))
        return
    methods = [method["name"] for method in description["methods"]]
    print(json.dumps({"model": description["model"], "methods": methods}))


main(*sys.argv[1:])
