"""The wine endpoint's code: one wine as a list of thirteen numbers."""

from typing import Any

GROWERS = ("grower A", "grower B", "grower C")


class Preprocess:
    def preprocess(self, body: dict, state: dict, collect_custom_statistics_fn=None) -> Any:
        if collect_custom_statistics_fn:
            collect_custom_statistics_fn({"alcohol": body["wine"][0]})
        return [body["wine"]]

    def postprocess(self, data: Any, state: dict, collect_custom_statistics_fn=None) -> dict:
        return {"grower": GROWERS[int(data[0])]}
