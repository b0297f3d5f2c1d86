"""Around a model of a tensor server: an array in, an array or a list of arrays out."""

import numpy as np


class Preprocess:
    def preprocess(self, body, state, collect_custom_statistics_fn=None):
        state["name"] = body.get("name")
        if "b" in body:
            return [np.array(body["a"]), np.array(body["b"])]
        return np.array([body["values"]])

    def postprocess(self, data, state, collect_custom_statistics_fn=None):
        if isinstance(data, list):
            return {"name": state["name"], "outputs": [d.tolist() for d in data]}
        return {"name": state["name"], "type": str(data.dtype), "output": data.tolist()}
