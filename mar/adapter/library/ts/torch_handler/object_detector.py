"""The handler of detectors of objects."""

from __future__ import annotations

from typing import Any

from torchvision import transforms

from ts.torch_handler.vision_handler import VisionHandler


class ObjectDetector(VisionHandler):
    """Answers the objects of an image: class and box, and the score."""

    image_processing = transforms.Compose([transforms.ToTensor()])
    threshold = 0.5

    def postprocess(self, data: Any) -> Any:
        """Make the answers."""
        return [self._objects(found) for found in data]

    def _objects(self, found: Any) -> list[dict[str, Any]]:
        sure = found["scores"] >= self.threshold
        columns = (found[key][sure].tolist() for key in ("labels", "boxes", "scores"))
        objects = []
        for number, box, score in zip(*columns):
            label = str(number) if self.mapping is None else self.mapping[str(number)]
            objects.append({label: box, "score": score})
        return objects
