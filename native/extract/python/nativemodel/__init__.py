"""Extracts models of scikit-learn, XGBoost and LightGBM into the flat files that package native computes.

It runs in an interpreter that has the model's own library, and needs nothing else but numpy. `extract` is the whole
of it.
"""

from nativemodel.graph import RefusedError
from nativemodel.models import extract

__all__ = ["RefusedError", "extract"]
