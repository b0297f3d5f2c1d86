"""Custom code: the custom engine does not load or predict by itself.

The service downloads the model file and calls these methods. Only this code knows the format of the
file, so an endpoint can use any library, or none.
"""

from typing import Any, Callable, Optional

import joblib
import numpy as np


class Preprocess:
    """Answers `{"features": [13.2, 2.8, 4.4]}` with `{"predict": [0]}`."""

    def __init__(self) -> None:
        # Called once, when the service starts to serve this endpoint; before load.
        self._model = None

    def load(self, local_file_name: str) -> Any:
        """Called once, with the path of the downloaded model file."""
        self._model = joblib.load(local_file_name)
        return self._model

    def preprocess(
        self,
        body: dict,
        state: dict,
        collect_custom_statistics_fn: Optional[Callable[[dict], None]] = None,
    ) -> Any:
        features = body.get("features")
        if not isinstance(features, list) or len(features) != self._model.n_features_in_:
            # A ValueError becomes the client's answer: status 422 with this text.
            raise ValueError(f"the request needs 'features', a list of {self._model.n_features_in_} numbers")
        return np.array([features], dtype=float)

    def process(
        self,
        data: Any,
        state: dict,
        collect_custom_statistics_fn: Optional[Callable[[dict], None]] = None,
    ) -> Any:
        """Takes the place of the other engines' call of the model's predict."""
        return self._model.predict(data)

    def postprocess(
        self,
        data: Any,
        state: dict,
        collect_custom_statistics_fn: Optional[Callable[[dict], None]] = None,
    ) -> dict:
        return {"predict": data.tolist()}
