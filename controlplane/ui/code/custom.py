"""Code that loads and asks its model itself: preprocess -> process -> postprocess."""

from typing import Any, Optional


class Preprocess:
    def load(self, local_file_name: Optional[str]) -> Any:
        """Called once, with the path of the model; None when the endpoint has no model."""

    def preprocess(self, body: Any, state: dict, collect_custom_statistics_fn=None) -> Any:
        """Turns the request's JSON into what process takes."""
        return body

    def process(self, data: Any, state: dict, collect_custom_statistics_fn=None) -> Any:
        """Asks the model."""
        return data

    def postprocess(self, data: Any, state: dict, collect_custom_statistics_fn=None) -> Any:
        """Turns the result into the answer's JSON."""
        return data
