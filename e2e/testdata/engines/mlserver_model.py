"""Writes a model and its settings into a folder for MLServer, and prints its predictions.

python mlserver_model.py FOLDER HTTP-PORT GRPC-PORT METRICS-PORT
"""

import json
import pickle
import sys
from pathlib import Path

from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression


def main() -> None:
    folder = Path(sys.argv[1])
    http, grpc, metrics = map(int, sys.argv[2:])
    data = load_iris()
    model = LogisticRegression(max_iter=500).fit(data.data, data.target)
    home = folder / "iris"
    home.mkdir(parents=True)
    (home / "model.pkl").write_bytes(pickle.dumps(model))
    settings = {
        "name": "iris",
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"uri": "./model.pkl", "version": "v1"},
    }
    (home / "model-settings.json").write_text(json.dumps(settings))
    ports = {
        "host": "127.0.0.1",
        "http_port": http,
        "grpc_port": grpc,
        "metrics_port": metrics,
        "parallel_workers": 0,
    }
    (folder / "settings.json").write_text(json.dumps(ports))
    rows = data.data[::40]
    print(json.dumps({"rows": rows.tolist(), "predictions": model.predict(rows).tolist()}))


if __name__ == "__main__":
    main()
