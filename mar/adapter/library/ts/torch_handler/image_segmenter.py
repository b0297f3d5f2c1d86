"""The handler of models that find the class of each pixel."""

from __future__ import annotations

from typing import Any

import torch
from torchvision import transforms

from ts.torch_handler.vision_handler import VisionHandler


class ImageSegmenter(VisionHandler):
    """Answers the class of each pixel of an image, and its probability."""

    image_processing = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
        ]
    )

    def postprocess(self, data: Any) -> Any:
        """Make the answers: for each pixel the number of its class, and the probability."""
        best = torch.softmax(data["out"], dim=1).max(dim=1)
        return torch.stack([best.indices.to(best.values.dtype), best.values], dim=-1).tolist()
