"""Extracts a model file: python main.py --engine sklearn --model FILE --out FILE [--proof FILE] [--method NAME].

Prints one line of JSON: {"model": ..., "methods": [...]} or {"refused": reason}. Other failures are exceptions.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the libraries' threads wait for each other, also for one row

from nativemodel import RefusedError, extract
from nativemodel.models import load, only_file


def main() -> int:
    parser = argparse.ArgumentParser(description="Extracts a model into a flat file.")
    parser.add_argument("--engine", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--proof")
    parser.add_argument("--method", default="")
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    try:
        model = load(options.engine, only_file(options.model), options.method)
        description = extract(model, options.out, options.proof, options.seed, options.rows)
    except RefusedError as refused:
        print(json.dumps({"refused": str(refused)}))
        return 0
    print(json.dumps({"model": description["model"], "methods": [method["name"] for method in description["methods"]]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
