"""Answers 7 x + the length of the endpoint's name, with or without a model."""

import numpy as np


class Preprocess:
    def preprocess(self, body, state, collect_custom_statistics_fn=None):
        state["x"] = body["x"]
        return np.array([[body["x"]]], dtype=float)

    def process(self, data, state, collect_custom_statistics_fn=None):
        if getattr(self, "_model", None) is not None:
            return self._model.predict(data)
        return 7 * data[:, 0]

    def postprocess(self, data, state, collect_custom_statistics_fn=None):
        name = self.model_endpoint.serving_url
        return {"y": round(float(data[0])) + len(name), "from": name}
