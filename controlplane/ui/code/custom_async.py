"""Code that waits for other systems while further requests run: all three steps are coroutines."""

from typing import Any, Optional


class Preprocess:
    def load(self, local_file_name: Optional[str]) -> Any:
        """Called once, with the path of the model; None when the endpoint has no model."""

    async def preprocess(self, body: Any, state: dict, collect_custom_statistics_fn=None) -> Any:
        """Turns the request's JSON into what process takes."""
        return body

    async def process(self, data: Any, state: dict, collect_custom_statistics_fn=None) -> Any:
        """Another endpoint is asked with: await self.send_request("name", version=None, data=data)"""
        return data

    async def postprocess(self, data: Any, state: dict, collect_custom_statistics_fn=None) -> Any:
        """Turns the result into the answer's JSON."""
        return data
