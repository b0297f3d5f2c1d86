"""Writes what the ClearML SDK reads out of each golden/*.conf beside it, as golden/*.json.

Run it in an environment that has `clearml==1.17.0`:  python hocon/testdata/golden.py
The files named written-*.conf are themselves made here, by the SDK's own writer.
A text that the SDK refuses gets the JSON {"!error": "<class>"}.
"""

import json
import os
import pathlib

from clearml.utilities.config import config_dict_to_text
from clearml.utilities.dicts import hocon_unquote_key
from clearml.utilities.pyhocon import ConfigFactory
from clearml.utilities.pyhocon.config_tree import NoneValue

HERE = pathlib.Path(__file__).parent / "golden"

# The variables that the tests on the Go side give to Parse as well.
os.environ.update({"GOLDEN_HOME": "/home/ada", "GOLDEN_PORT": "8008", "GOLDEN_EMPTY": ""})

ENDPOINT = {
    "engine_type": "sklearn",
    "serving_url": "test_model_sklearn",
    "model_id": "5c1e",
    "version": "1",
    "preprocess_artifact": "py_code_test_model_sklearn_1",
}
WRITTEN = {
    "empty": {},
    "endpoints": {
        "test_model_sklearn/1": ENDPOINT,
        "plain": {**ENDPOINT, "version": "", "serving_url": "plain"},
        "with space/2": ENDPOINT,
        "dotted.name/1": ENDPOINT,
    },
    "endpoint-triton": {
        "test_q/2": {
            "engine_type": "triton",
            "serving_url": "test_q",
            "version": "2",
            "input_size": [[1, 28, 28], [1]],
            "input_type": ["float32", "int64"],
            "input_name": ["dense_input", "length"],
            "output_size": [[-1, 10]],
            "output_type": ["float32"],
            "output_name": ["activation_2"],
            "auxiliary_cfg": 'platform: "tensorflow_savedmodel"\nmax_batch_size: 4\nback\\slash',
        }
    },
    "endpoint-aux-map": {
        "m/1": {
            "engine_type": "triton",
            "serving_url": "m",
            "version": "1",
            "auxiliary_cfg": {
                "platform": '"pytorch_libtorch"',
                "max_batch_size": 16,
                "dynamic_batching": {"preferred_batch_size": [1, 2, 4], "on": True},
                "input": {"0": {"format": "FORMAT_NCHW"}},
                "none": None,
            },
        }
    },
    "canary": {
        "c": {"endpoint": "c", "weights": [0.1, 0.9], "load_endpoints": ["m/2", "m/1"]},
        "p": {"endpoint": "p", "weights": [1e-07, 1.0, 3], "load_endpoint_prefix": "m/"},
    },
    "monitoring": {
        "auto": {
            "base_serving_url": "auto",
            "engine_type": "xgboost",
            "monitor_project": "serving examples",
            "monitor_name": "train xgboost model - model",
            "monitor_tags": [],
            "only_published": False,
            "max_versions": 2,
        }
    },
    "metrics": {
        "m/*": {
            "endpoint": "m/*",
            "log_frequency": 0.5,
            "metrics": {
                "x0": {"type": "scalar", "buckets": [0.0, 0.5, 1.0]},
                "animal": {"type": "enum", "buckets": ["cat", "dog", "long haired cat"]},
                "v": {"type": "value", "buckets": None},
                "a.b": {"type": "counter", "buckets": None},
            },
        }
    },
    "special-keys": {
        "a:b": 1,
        "x@y": 2,
        "plus+": 3,
        "br[1]": 4,
        "-dash": 5,
        "sla/sh": 6,
        "q?": 7,
        "1": 8,
        "1.5": 9,
        "d$": 10,
        "am&p": 11,
        "h#sh": 12,
        "a.b.c": {"d.e": 13},
        "t rue": 14,
    },
    "special-values": {
        "quote": 'say "hi"',
        "back": "c:\\temp\\new",
        "hash": "a # b",
        "slashes": "http://x//y",
        "dollar": "${HOME} $x",
        "umlaut": "Ünïcödé 漢字 🙂",
        "tab": "a\tb",
        "lines": "one\ntwo\n",
        "spaces": "  padded  ",
        "number text": "10",
        "bool text": "true",
        "null text": "null",
        "yes": "yes",
        "equals": "a=b",
        "brackets": "[1] {2}",
        "comma": "a,b",
        "empty": "",
    },
    "numbers": {
        "int": 3,
        "negative": -4,
        "float": 2.5,
        "small": 1e-07,
        "big": 12345678901234567890,
        "exp": 1e22,
        "zero": 0,
        "zerof": 0.0,
        "true": True,
        "false": False,
        "none": None,
    },
    "nested-lists": {
        "a": [[1, 2], [3, [4, 5]]],
        "b": [{"x": 1}, {"y": [2]}],
        "c": [],
        "d": {},
        "e": [[]],
        "long": ["word number %d of a longer list" % i for i in range(12)],
    },
}


def plain(value):
    if isinstance(value, NoneValue):
        return None
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [plain(v) for v in value]
    return value


def main():
    for name, value in WRITTEN.items():
        (HERE / f"written-{name}.conf").write_text(config_dict_to_text(value), encoding="utf-8")
    for path in sorted(HERE.glob("*.conf")):
        text = path.read_bytes().decode("utf-8-sig")
        try:
            result = plain(hocon_unquote_key(ConfigFactory.parse_string(text)))
        except Exception as error:  # noqa: BLE001 - the class is the result
            result = {"!error": type(error).__name__}
        out = json.dumps(result, indent=1, ensure_ascii=False, default=str)
        path.with_suffix(".json").write_text(out + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
