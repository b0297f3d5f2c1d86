"""The parts of TorchServe's Python package that handlers import, without the server."""

import sys

from ts import labels, pieces

__version__ = "0.12.0"

# Modules under the names that they have in TorchServe.
sys.modules["ts.utils"] = sys.modules["ts.utils.util"] = labels
sys.modules["ts.handler_utils.utils"] = pieces
labels.util = labels
utils = labels
