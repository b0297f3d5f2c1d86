"""An endpoint that asks two others and joins their answers, with a pool of threads.

It has no model: `send_request` goes to the other endpoints through the service itself, without
HTTP, to whatever version or canary stands under that name.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Optional

ENDPOINTS = ("/test_model_sklearn_a/", "/test_model_sklearn_b/")


class Preprocess:
    """Sends the request on to both endpoints, and answers the mean of their `y` as `{"y": 0.5}`."""

    # The service puts its own function here before the instance is made. For linters and tests:
    send_request: Callable[..., Any]

    def __init__(self) -> None:
        # As many requests at a time as there are threads; each waits for its two answers.
        self._threads = ThreadPoolExecutor(max_workers=32)

    def process(
        self,
        data: Any,
        state: dict,
        collect_custom_statistics_fn: Optional[Callable[[dict], None]] = None,
    ) -> list:
        # Both at once: the pipeline takes as long as the slower one.
        asked = [
            self._threads.submit(self.send_request, endpoint=endpoint, version=None, data=data)
            for endpoint in ENDPOINTS
        ]
        return [answer.result() for answer in asked]

    def postprocess(
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

    def unload(self) -> None:
        """Called once, when the endpoint goes."""
        self._threads.shutdown()
