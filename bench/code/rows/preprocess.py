"""All rows of a request's JSON into a matrix, and their predictions back."""

import numpy as np


class Preprocess:
    def preprocess(self, body, state, collect_custom_statistics_fn=None):
        return np.array(body["rows"], dtype=float)

    def postprocess(self, data, state, collect_custom_statistics_fn=None):
        return {"y": data.tolist()}
