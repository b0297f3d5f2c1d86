"""A custom endpoint that loads its model and predicts one row, without batching."""

import joblib


class Preprocess:
    def load(self, local_file_name):
        self._model = joblib.load(local_file_name)

    def process(self, data, state, collect_custom_statistics_fn=None):
        return {"y": self._model.predict([[data["x0"], data["x1"]]]).tolist()}
