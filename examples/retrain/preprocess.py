"""A request's JSON in, the model's row out, and its class back as JSON."""

from typing import Any, Callable, Optional

import numpy as np

FEATURES = ("radius", "texture", "perimeter", "area", "smoothness", "compactness", "concavity")


class Preprocess:
    """Turns `{"radius": 14.1, ...}` into the model's row, and its class into `{"y": 1}`."""

    def preprocess(
        self,
        body: dict,
        state: dict,
        collect_custom_statistics_fn: Optional[Callable[[dict], None]] = None,
    ) -> Any:
        return np.array([[float(body[name]) for name in FEATURES]])

    def postprocess(
        self,
        data: Any,
        state: dict,
        collect_custom_statistics_fn: Optional[Callable[[dict], None]] = None,
    ) -> dict:
        return {"y": int(data[0])}
