"""Writes the folder of models that MLServer serves, and becomes MLServer.

python start.py FOLDER PORT
"""

import json
import os
import sys
from pathlib import Path

from usercode import CASES, MODELS, WORKERS

SKLEARN = "mlserver_sklearn.SKLearnModel"
BATCHED = {"max_batch_size": 64, "max_batch_time": 0.001}
MODEL_SETTINGS = {
    "null": {"implementation": "runtime.Null"},
    "lr": {"implementation": SKLEARN, "parameters": {"uri": str(MODELS / "lr.pkl")}},
    "lr_native": {"implementation": SKLEARN, "parameters": {"uri": str(MODELS / "lr.pkl")}},
    "lr_batched": {"implementation": SKLEARN, "parameters": {"uri": str(MODELS / "lr.pkl")}, **BATCHED},
    "rf": {"implementation": SKLEARN, "parameters": {"uri": str(MODELS / "rf.pkl")}},
    "rf_batched": {"implementation": SKLEARN, "parameters": {"uri": str(MODELS / "rf.pkl")}, **BATCHED},
}


def main() -> None:
    folder, port = Path(sys.argv[1]), int(sys.argv[2])
    settings = {
        "host": "127.0.0.1",
        "http_port": port,
        "grpc_port": port + 1,
        "metrics_endpoint": None,
        "parallel_workers": WORKERS,
        "debug": False,
        "environments_dir": str(folder / "environments"),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "settings.json").write_text(json.dumps(settings))
    for name in CASES & set(MODEL_SETTINGS):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "model-settings.json").write_text(json.dumps({"name": name, **MODEL_SETTINGS[name]}))
    os.execv(
        sys.executable, [sys.executable, "-c", "from mlserver.cli import main; main()", "start", str(folder)]
    )


if __name__ == "__main__":
    main()
