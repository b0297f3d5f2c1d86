"""Answers in pieces, under the name of older releases."""

from ts.pieces import send_intermediate_predict_response

__all__ = ["send_intermediate_predict_response"]
