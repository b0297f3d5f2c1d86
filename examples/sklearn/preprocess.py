"""What happens around the model: a request's JSON in, the model's input out, and back again.

The service makes one `Preprocess()` and calls its methods for every request to the endpoint:
preprocess -> the engine's predict -> postprocess. Every method is optional.
"""

from typing import Any, Callable, Optional

import numpy as np

# The order in which the model was trained to read its numbers.
FEATURES = (
    "alcohol",
    "malic_acid",
    "ash",
    "alcalinity_of_ash",
    "magnesium",
    "total_phenols",
    "flavanoids",
    "nonflavanoid_phenols",
    "proanthocyanins",
    "color_intensity",
    "hue",
    "od280/od315_of_diluted_wines",
    "proline",
)


class Preprocess:
    """Turns `{"alcohol": 13.2, ...}` into the model's row, and its label into `{"y": [1]}`."""

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
        return {"y": data.tolist() if isinstance(data, np.ndarray) else data}
