"""All rows of a request's JSON into what XGBoost predicts from, and their predictions back."""

import numpy as np
import xgboost


class Preprocess:
    def preprocess(self, body, state, collect_custom_statistics_fn=None):
        return xgboost.DMatrix(np.array(body["rows"], dtype=float))

    def postprocess(self, data, state, collect_custom_statistics_fn=None):
        return {"y": data.tolist()}
