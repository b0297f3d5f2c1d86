"""The endpoint of own_rows with a method for many requests at once."""

import joblib


class Preprocess:
    def load(self, local_file_name):
        self._model = joblib.load(local_file_name)

    def process_batch(self, data, state, collect_custom_statistics_fn=None):
        all_rows = [row for one in data for row in one["rows"]]
        predicted = iter(self._model.predict(all_rows).tolist())
        return [{"y": [next(predicted) for _ in one["rows"]]} for one in data]
