"""What a handler gets beside its data: the context of TorchServe."""

from __future__ import annotations

from typing import Any


class RequestProcessor:
    """One request's headers, and the status and headers of its answer."""

    def __init__(self, request_header: dict[str, Any]) -> None:
        self._request_header = request_header
        self._status, self._phrase = 200, None
        self._response_header: dict[str, str] = {}

    def get_request_property(self, key: str) -> Any:
        """Return a header of the request."""
        return self._request_header.get(key)

    def get_request_properties(self) -> dict[str, Any]:
        """Return all headers of the request."""
        return self._request_header

    def report_status(self, code: int, reason_phrase: str | None = None) -> None:
        """Set the status of the answer."""
        self._status, self._phrase = code, reason_phrase

    def get_response_status_code(self) -> int:
        """Return the status of the answer."""
        return self._status

    def get_response_status_phrase(self) -> str | None:
        """Return the text of the status."""
        return self._phrase

    def add_response_property(self, key: str, value: str) -> None:
        """Set a header of the answer."""
        self._response_header[key] = value

    def get_response_headers(self) -> dict[str, str]:
        """Return the headers of the answer."""
        return self._response_header

    def get_response_header(self, key: str) -> str | None:
        """Return a header of the answer."""
        return self._response_header.get(key)


class Context:
    """The model, and the requests that are being answered."""

    def __init__(
        self,
        model_name: str,
        model_dir: str,
        manifest: dict[str, Any],
        batch_size: int,
        gpu: int | None,
        mms_version: str,
        limit_max_image_pixels: bool = True,
        metrics: Any = None,
        model_yaml_config: dict[str, Any] | None = None,
    ) -> None:
        self.model_name = model_name
        self.manifest = manifest
        self.model_yaml_config = model_yaml_config or {}
        self.system_properties = {
            "model_dir": model_dir,
            "gpu_id": gpu,
            "batch_size": batch_size,
            "server_name": "MMS",
            "server_version": mms_version,
            "limit_max_image_pixels": limit_max_image_pixels,
        }
        self.request_ids: dict[int, str] | None = None
        self.request_processor: list[RequestProcessor] = []
        self.metrics = metrics
        self.stopping_criteria = None
        self.cl_socket = None
        self.send_piece: Any = None  # sends a piece of a streamed answer

    def get_request_id(self, idx: int = 0) -> str | None:
        """Return the id of a request."""
        return (self.request_ids or {}).get(idx)

    def get_request_header(self, idx: int, key: str) -> Any:
        """Return a header of a request."""
        return self.request_processor[idx].get_request_property(key)

    def get_all_request_header(self, idx: int) -> dict[str, Any]:
        """Return all headers of a request."""
        return self.request_processor[idx].get_request_properties()

    def set_response_content_type(self, idx: int, value: str) -> None:
        """Set the content type of an answer."""
        self.set_response_header(idx, "content-type", value)

    def get_response_content_type(self, idx: int) -> str | None:
        """Return the content type of an answer."""
        return self.get_response_headers(idx).get("content-type")

    def get_response_status(self, idx: int) -> tuple[int, str | None]:
        """Return the status of an answer."""
        processor = self.request_processor[idx]
        return processor.get_response_status_code(), processor.get_response_status_phrase()

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        """Set the status of an answer."""
        if idx < len(self.request_processor):
            self.request_processor[idx].report_status(code, phrase)

    def set_all_response_status(self, code: int = 200, phrase: str = "") -> None:
        """Set the status of all answers."""
        for processor in self.request_processor:
            processor.report_status(code, phrase)

    def get_response_headers(self, idx: int) -> dict[str, str]:
        """Return the headers of an answer."""
        return self.request_processor[idx].get_response_headers()

    def set_response_header(self, idx: int, key: str, value: str) -> None:
        """Set a header of an answer."""
        self.request_processor[idx].add_response_property(key, value)
