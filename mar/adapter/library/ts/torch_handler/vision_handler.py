"""The base of handlers for images."""

from __future__ import annotations

import base64
import io
from abc import ABC
from typing import Any

import torch
from PIL import Image

from ts.handler_utils.timer import timed
from ts.torch_handler.base_handler import BaseHandler


class VisionHandler(BaseHandler, ABC):
    """Makes tensors of images, which are files, files in base64, or lists of numbers."""

    image_processing: Any = None  # of a subclass: makes a tensor of an image

    def initialize(self, context: Any) -> None:
        """Load the model."""
        super().initialize(context)
        if not context.system_properties.get("limit_max_image_pixels"):
            Image.MAX_IMAGE_PIXELS = None

    @timed
    def preprocess(self, data: Any) -> Any:
        """Make one tensor of all images."""
        return torch.stack([self._tensor(row.get("data") or row.get("body")) for row in data]).to(self.device)

    def _tensor(self, image: Any) -> Any:
        if isinstance(image, str):
            image = base64.b64decode(image)
        if isinstance(image, (bytes, bytearray)):
            return self.image_processing(Image.open(io.BytesIO(image)))
        return torch.FloatTensor(image)
