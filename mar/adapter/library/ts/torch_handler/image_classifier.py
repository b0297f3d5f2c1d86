"""The handler of classifiers of images."""

from __future__ import annotations

from typing import Any

import torch
from torchvision import transforms

from ts.handler_utils.timer import timed
from ts.labels import map_class_to_label
from ts.torch_handler.vision_handler import VisionHandler


class ImageClassifier(VisionHandler):
    """Answers the most probable classes of an image, with their probabilities."""

    topk = 5
    # The size and the statistics of ImageNet.
    image_processing = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
        ]
    )

    def set_max_result_classes(self, topk: int) -> None:
        """Set the number of classes in an answer."""
        self.topk = topk

    def get_max_result_classes(self) -> int:
        """Return the number of classes in an answer."""
        return self.topk

    @timed
    def postprocess(self, data: Any) -> Any:
        """Make the answers."""
        best = torch.topk(torch.softmax(data, dim=1), self.topk, dim=1)
        return map_class_to_label(best.values.tolist(), self.mapping, best.indices.tolist())
