"""What happens around the model: preprocess -> the engine's predict -> postprocess."""

from typing import Any

COLUMNS = ["first", "second"]  # in the order in which the model was trained


class Preprocess:
    def preprocess(self, body: dict, state: dict, collect_custom_statistics_fn=None) -> Any:
        """Turns the request's JSON into what the model's predict takes."""
        missing = [name for name in COLUMNS if name not in body]
        if missing:
            raise ValueError(f"the request lacks {', '.join(missing)}")  # answered with status 422
        return [[body[name] for name in COLUMNS]]

    def postprocess(self, data: Any, state: dict, collect_custom_statistics_fn=None) -> dict:
        """Turns the model's result into the answer's JSON."""
        return {"y": data.tolist() if hasattr(data, "tolist") else data}
