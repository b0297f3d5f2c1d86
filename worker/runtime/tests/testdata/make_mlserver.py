"""Writes mlserver.json: requests as the codecs of MLServer 1.7.1 encode them, and what they decode.

python -m venv v && v/bin/pip install mlserver==1.7.1 && v/bin/python make_mlserver.py
"""

import datetime
import json
import pathlib

import numpy as np
import pandas as pd
from mlserver.codecs import (
    Base64Codec,
    DatetimeCodec,
    NumpyCodec,
    NumpyRequestCodec,
    PandasCodec,
    StringCodec,
    StringRequestCodec,
)
from mlserver.types import InferenceRequest


def told(value):
    """Describe a decoded value so that JSON has it exactly."""
    if isinstance(value, pd.DataFrame):
        return {"frame": {name: [told(cell) for cell in value[name].tolist()] for name in value}}
    if isinstance(value, np.ndarray):
        return {
            "array": str(value.dtype),
            "shape": list(value.shape),
            "cells": [told(c) for c in value.ravel().tolist()],
        }
    if isinstance(value, list):
        return [told(each) for each in value]
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, datetime.datetime):
        return {"datetime": value.isoformat()}
    if isinstance(value, float) and value != value:
        return {"nan": True}
    return value


def plain(request):
    """Return the request as its REST client sends it."""
    return json.loads(request.model_dump_json(exclude_none=True))


def main():
    """Encode and decode."""
    table = pd.DataFrame(
        {
            "f": [1.5, float("nan"), -2.0],
            "i": np.array([1, 2, 3], "int32"),
            "b": [True, False, True],
            "s": pd.Series(["a", "größer", ""], dtype=object),
            "mixed": pd.Series([1, "x", 2.5], dtype=object),
            "lists": pd.Series([[1, 2], [], {"a": 1}], dtype=object),
        }
    )
    moments = [datetime.datetime(2024, 2, 29, 12, 30), datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)]
    inputs = {
        "np float": (NumpyCodec, np.array([[1.5, 2.5], [-3.0, 1e30]])),
        "np float32": (NumpyCodec, np.array([0.1, 2.5], "float32")),
        "np int": (NumpyCodec, np.arange(6, dtype="int16").reshape(3, 2)),
        "np uint8": (NumpyCodec, np.array([[0, 255]], "uint8")),
        "np bool": (NumpyCodec, np.array([True, False])),
        "str": (StringCodec, ["a", "größer", ""]),
        "base64": (Base64Codec, [b"\x00\xff", b"", b"text"]),
        "datetime": (DatetimeCodec, moments),
    }
    cases = []
    for name, (codec, payload) in inputs.items():
        arguments = {} if codec is NumpyCodec else {"use_bytes": False}
        one = codec.encode_input("x", payload, **arguments)
        cases.append(
            {"name": name, "request": {"inputs": [plain(one)]}, "inputs": {"x": told(codec.decode_input(one))}}
        )
    whole = {
        "request np": NumpyRequestCodec.encode_request(np.array([[1, 2], [3, 4]], "int64")),
        "request str": StringRequestCodec.encode_request(["a", "b"], use_bytes=False),
        "request pd": PandasCodec.encode_request(table, use_bytes=False),
        "request pd of codecs": InferenceRequest(
            parameters={"content_type": "pd"},
            inputs=[
                DatetimeCodec.encode_input("when", moments, use_bytes=False),
                NumpyCodec.encode_input("x", np.array([1.0, 2.0])),
            ],
        ),
    }
    codecs = {"np": NumpyRequestCodec, "str": StringRequestCodec, "pd": PandasCodec}
    for name, request in whole.items():
        sent = plain(request)
        for each in request.inputs:
            kind = each.parameters and each.parameters.content_type
            codec = {"datetime": DatetimeCodec, "np": NumpyCodec, "str": StringCodec}.get(kind)
            if codec is not None:
                each.parameters._decoded_payload = codec.decode_input(each)
        decoded = codecs[request.parameters.content_type].decode_request(request)
        cases.append({"name": name, "request": sent, "whole": told(decoded)})
    file = pathlib.Path(__file__).with_name("mlserver.json")
    file.write_text(json.dumps(cases, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
