"""Conversion between the JSON of requests and answers and the model's rows."""

from typing import Any, Callable, Optional

import numpy as np

# x0 is the body mass index, x1 the logarithm of the blood's triglycerides.
FEATURES = ("x0", "x1")


class Preprocess:
    """Turns `{"x0": 32.1, "x1": 4.86}` into the model's row, and the prediction into `{"y": [184.5]}`."""

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
        return np.array([[float(body[name]) for name in FEATURES]])

    def postprocess(
        self,
        data: Any,
        state: dict,
        collect_custom_statistics_fn: Optional[Callable[[dict], None]] = None,
    ) -> dict:
        return {"y": data.tolist()}
