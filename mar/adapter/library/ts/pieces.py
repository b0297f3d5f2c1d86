"""Answers in pieces."""

from __future__ import annotations

from typing import Any


def send_intermediate_predict_response(
    ret: Any, req_id_map: Any, message: str, code: int, context: Any = None
) -> None:
    """Send a piece of the answer before the handler returns."""
    if context is None or context.send_piece is None:
        raise RuntimeError("a piece of an answer can be sent only while a request is answered")
    context.send_piece(ret)
