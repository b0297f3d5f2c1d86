"""The program clearml-serving as a Python package, and a client of its inference service.

    from clearml_serving_go import Client

    client = Client("http://127.0.0.1:8080")
    client.predict("loans", [{"age": 31, "income": 2000}])

The client needs the standard library only. It takes numpy arrays and pandas tables if they are
installed. ``AsyncClient`` has the same methods for asyncio.
"""

from __future__ import annotations

from ._async import AsyncClient
from ._binary import find_binary
from ._client import Answer, Client, FeedbackCounts
from ._errors import (
    BadRequestError,
    ConflictError,
    ConnectError,
    ConnectionLostError,
    DeadlineError,
    ForbiddenError,
    InvalidInputError,
    NotFoundError,
    OverloadedError,
    PayloadTooLargeError,
    RequestTimeoutError,
    ServingError,
    StatusError,
    UnauthorizedError,
    UnavailableError,
    UserCodeError,
)

__all__ = [
    "Answer",
    "AsyncClient",
    "BadRequestError",
    "Client",
    "ConflictError",
    "ConnectError",
    "ConnectionLostError",
    "DeadlineError",
    "FeedbackCounts",
    "ForbiddenError",
    "InvalidInputError",
    "NotFoundError",
    "OverloadedError",
    "PayloadTooLargeError",
    "RequestTimeoutError",
    "ServingError",
    "StatusError",
    "UnauthorizedError",
    "UnavailableError",
    "UserCodeError",
    "find_binary",
]


def __getattr__(name: str) -> str:
    if name == "__version__":  # read on demand: it costs more than the rest of the import
        from importlib.metadata import version

        return version("clearml-serving-go")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
