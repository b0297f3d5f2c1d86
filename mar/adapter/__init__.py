"""An endpoint that was a model archive of TorchServe. The archive is in the folder `archive`."""

from .torchserve_archive import Preprocess

__all__ = ["Preprocess"]
