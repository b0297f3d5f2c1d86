"""What happens around the model: a request's JSON in, the model's matrix out, and back again."""

from typing import Any, Callable, Optional

import numpy as np
import xgboost as xgb

FEATURES = ("x0", "x1", "x2", "x3")


class Preprocess:
    """Turns `{"x0": 5.1, ...}` into a `DMatrix` of one row, and the prediction into `{"y": [0.98]}`."""

    def preprocess(
        self,
        body: dict,
        state: dict,
        collect_custom_statistics_fn: Optional[Callable[[dict], None]] = None,
    ) -> Any:
        missing = [name for name in FEATURES if name not in body]
        if missing:
            # A ValueError becomes the client's answer: status 422 with this text.
            raise ValueError(f"the request lacks {', '.join(missing)}")
        return xgb.DMatrix(np.array([[float(body[name]) for name in FEATURES]]))

    def postprocess(
        self,
        data: Any,
        state: dict,
        collect_custom_statistics_fn: Optional[Callable[[dict], None]] = None,
    ) -> dict:
        # The service has called predict; what it returned is a NumPy array.
        return {"y": data.tolist()}
