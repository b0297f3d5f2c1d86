"""The errors of the client. Every one of them is a ServingError."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Optional


class ServingError(Exception):
    """A request had no usable answer."""


class ConnectError(ServingError, ConnectionError):
    """The service could not be reached. The request was not sent."""


class ConnectionLostError(ServingError, ConnectionError):
    """The connection ended before the answer was there. The service may have processed the request."""


class RequestTimeoutError(ServingError, TimeoutError):
    """The time of the request is over."""


class StatusError(ServingError):
    """The service answered with an error.

    ``detail`` is what the service says: a text, or what user code has put into its HTTPException.
    """

    status: int
    detail: Any
    headers: Mapping[str, str]

    #: Statuses with a class of their own.
    by_status: ClassVar[dict[int, type[StatusError]]] = {}

    def __init__(self, status: int, detail: Any, headers: Mapping[str, str], *, what: str = "") -> None:
        self.status, self.detail, self.headers = status, detail, headers
        text = detail if isinstance(detail, str) else json.dumps(detail, default=str)
        where = f"{what}: " if what else ""
        by_id = f" (request {self.request_id})" if self.request_id else ""
        super().__init__(f"{where}{status}: {text}{by_id}")

    @property
    def request_id(self) -> Optional[str]:
        """The request's id in the service's log."""
        return self.headers.get("x-request-id")

    @property
    def retry_after(self) -> Optional[float]:
        """Seconds after which the service asks to try again."""
        return retry_after(self.headers)


class BadRequestError(StatusError):
    """400: the request does not fit the endpoint, or is no proper request."""


class UnauthorizedError(StatusError):
    """401: a key is needed, or the given one is not valid."""


class ForbiddenError(StatusError):
    """403: the key does not open this endpoint."""


class NotFoundError(StatusError):
    """404: there is no such endpoint or version."""


class ConflictError(StatusError):
    """409: the endpoint keeps no predictions, so that it takes no feedback."""


class PayloadTooLargeError(StatusError):
    """413: the request is larger than the service's --max-body."""


class InvalidInputError(StatusError):
    """422: the data cannot be used; the detail names what is wrong."""


class OverloadedError(StatusError):
    """429: too many requests are waiting, or the key has used up its share."""


class UserCodeError(StatusError):
    """500: the endpoint's code or model has failed."""


class UnavailableError(StatusError):
    """503: the endpoint is not ready; retry_after says when it may be."""


class DeadlineError(StatusError, RequestTimeoutError):
    """504: the deadline of the request or of the endpoint has passed."""


StatusError.by_status.update(
    {
        400: BadRequestError,
        401: UnauthorizedError,
        403: ForbiddenError,
        404: NotFoundError,
        409: ConflictError,
        413: PayloadTooLargeError,
        422: InvalidInputError,
        429: OverloadedError,
        500: UserCodeError,
        503: UnavailableError,
        504: DeadlineError,
    }
)


def status_error(status: int, body: bytes, headers: Mapping[str, str], what: str) -> StatusError:
    """Return the error of an answer. Services and proxies write the reason in different forms."""
    text = body[:65536].decode("utf-8", "replace").strip()
    detail: Any = text or "(no reason given)"
    if text.startswith("{"):
        try:
            value = json.loads(body)
        except ValueError:
            pass
        else:
            if isinstance(value, dict):
                detail = value.get("detail", value.get("error", value))
    return StatusError.by_status.get(status, StatusError)(status, detail, headers, what=what)


def retry_after(headers: Mapping[str, str]) -> Optional[float]:
    """Return the seconds of the header Retry-After; its other form, a date, is not sent by the service."""
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None
