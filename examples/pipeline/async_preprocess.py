"""An endpoint that asks two others and joins their answers, on one event loop.

The same as preprocess.py for the custom_async engine: `send_request` is awaited, so no threads
are needed.
"""

import asyncio
from typing import Any, Callable, Optional

ENDPOINTS = ("/test_model_sklearn_a/", "/test_model_sklearn_b/")


class Preprocess:
    """Sends the request on to both endpoints, and answers the mean of their `y` as `{"y": 0.5}`."""

    # The service puts its own coroutine here before the instance is made. For linters and tests:
    send_request: Callable[..., Any]

    async def process(
        self,
        data: Any,
        state: dict,
        collect_custom_statistics_fn: Optional[Callable[[dict], None]] = None,
    ) -> list:
        # Both at once: the pipeline takes as long as the slower one.
        return await asyncio.gather(
            *(self.send_request(endpoint=endpoint, version=None, data=data) for endpoint in ENDPOINTS)
        )

    async def postprocess(
        self,
        data: list,
        state: dict,
        collect_custom_statistics_fn: Optional[Callable[[dict], None]] = None,
    ) -> dict:
        for endpoint, answer in zip(ENDPOINTS, data):
            if answer is None:  # that endpoint answered an error; its text is in the log
                raise ValueError(f"{endpoint.strip('/')} did not accept the request")
        a, b = (answer["y"][0] for answer in data)
        return {"y": 0.5 * a + 0.5 * b}
