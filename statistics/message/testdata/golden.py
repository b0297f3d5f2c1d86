"""Makes golden.json: the messages that the code of the original makes, for message_test.go.

Run in an environment with clearml-serving 1.3.5: python golden.py > golden.json
"""

import asyncio
import json
import sys
from unittest import mock

from clearml_serving.serving import model_request_processor as original

CASES = {
    "plain": (0.00314, 1, {}),
    "sampled": (1.5, 0.5, {}),
    "variables": (2, 1, {"x0": 1, "y": [0.5, 2]}),
    "zero": (0.00002, 1, {"text": 'é "quoted"'}),
    "nonfinite": (
        0.00002,
        1,
        {
            "a": float("nan"),
            "b": float("inf"),
            "c": float("-inf"),
            "d": "NaN Infinity",
            'e"NaN': [float("nan"), -1],
        },
    ),
    "huge": (0, 1, {"big": 123456789012345678901234567890, "small": 1e-9, "bad": "\ud800"}),
}


class User:
    """Stands for the engine of an endpoint whose code collects the values."""

    is_preprocess_async = is_process_async = is_postprocess_async = False

    def __init__(self, values):
        self.values = values

    def preprocess(self, body, state, collect):
        return body

    def process(self, body, state, collect):
        if self.values:
            collect(self.values)
        return body

    def postprocess(self, body, state, collect):
        return body


def message(latency, share, values):
    processor = object.__new__(original.ModelRequestProcessor)
    sent = []
    processor._kafka_stats_url = "broker"
    processor._metric_log_freq = share
    processor._metric_logging = {}
    processor._stats_queue = mock.Mock(put=lambda stats, block: sent.append(stats))
    clock = iter([100.0, 100.0 + latency])
    time = mock.patch.object(original, "time", lambda: next(clock))
    with time, mock.patch.object(original, "random", lambda: 0.0):
        asyncio.run(processor._process_request(User(values), "m/1", {}))
    return json.dumps(sent)  # the value_serializer of _stats_send_loop


json.dump({name: message(*case) for name, case in CASES.items()}, sys.stdout, indent=1)
print()
