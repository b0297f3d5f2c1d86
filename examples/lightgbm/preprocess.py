"""Conversion between the JSON of requests and answers and the model's rows."""

from typing import Any, Callable, Optional

import numpy as np

FEATURES = ("x0", "x1", "x2", "x3")


class Preprocess:
    """Turns `{"x0": 5.1, ...}` into the model's row, and its three probabilities into `{"y": 1}`."""

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
        return np.array([[body[name] for name in FEATURES]], dtype=np.float32)

    def postprocess(
        self,
        data: Any,
        state: dict,
        collect_custom_statistics_fn: Optional[Callable[[dict], None]] = None,
    ) -> dict:
        # One row of probabilities for one input row: the species is the index of the largest.
        return {"y": int(np.argmax(data, axis=1)[0])}
