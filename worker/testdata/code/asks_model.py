"""Code that predicts for one request at a time, and knows nothing of batches."""

import joblib


class Preprocess:
    def load(self, local_file_name):
        self._model = joblib.load(local_file_name)

    def process(self, data, state, collect_custom_statistics_fn=None):
        sure = self._model.predict_proba(data["rows"]).max(axis=1)
        return {"y": self._model.predict(data["rows"]).tolist(), "sure": [round(float(p), 9) for p in sure]}
