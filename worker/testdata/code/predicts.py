"""Rows in, predictions out: what a model of scikit-learn, XGBoost or LightGBM is served with."""

import numpy as np


class Preprocess:
    def preprocess(self, body, state, collect):
        return np.array(body["rows"], dtype=float)

    def postprocess(self, data, state, collect):
        return {"y": np.asarray(data).tolist()}
