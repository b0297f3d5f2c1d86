"""Converts two numbers of a request's JSON to a row, and the prediction to JSON."""

import numpy as np


class Preprocess:
    def preprocess(self, body, state, collect_custom_statistics_fn=None):
        return np.array([[body["x0"], body["x1"]]], dtype=float)

    def postprocess(self, data, state, collect_custom_statistics_fn=None):
        return {"y": data.tolist()}
