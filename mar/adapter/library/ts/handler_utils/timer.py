"""Times of a handler's methods."""

from __future__ import annotations

import functools
import time
from typing import Any, Callable


def timed(method: Callable[..., Any]) -> Callable[..., Any]:
    """Report the time of a method as a metric of the context, if the model's configuration asks for it."""

    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        context = getattr(self, "context", None)
        settings = getattr(context, "model_yaml_config", None) or {}
        handler = settings.get("handler") if isinstance(settings, dict) else None
        if not isinstance(handler, dict) or not handler.get("profile"):
            return method(self, *args, **kwargs)
        begun = time.perf_counter()
        result = method(self, *args, **kwargs)
        context.metrics.add_time(f"ts_handler_{method.__name__}", (time.perf_counter() - begun) * 1000)
        return result

    return call
