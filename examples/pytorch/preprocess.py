"""What happens around the model: an image in, its grey pixels to the model, the digit back."""

import io
from typing import Any, Callable, Optional, Union

import numpy as np
from clearml import StorageManager
from PIL import Image, ImageOps


class Preprocess:
    """Takes an image as the body of the request, or as `{"url": ...}`, and answers `{"digit": 5}`."""

    def preprocess(
        self,
        body: Union[bytes, dict],
        state: dict,
        collect_custom_statistics_fn: Optional[Callable[[dict], None]] = None,
    ) -> Any:
        if isinstance(body, bytes):
            file: Any = io.BytesIO(body)
        elif isinstance(body, dict) and "url" in body:
            # An address, or the path of a file on the service's machine.
            file = StorageManager.get_local_copy(remote_url=body["url"])
        else:
            raise ValueError('send an image as the body, or its address: {"url": "https://..."}')
        try:
            image = Image.open(file)
        except Exception as error:
            # A ValueError becomes the client's answer: status 422 with this text.
            raise ValueError(f"the image cannot be decoded: {error}") from error
        grey = ImageOps.grayscale(image.convert("RGB")).resize((28, 28))
        return np.array([np.array(grey)])  # (1, 28, 28), from 0 to 255

    def postprocess(
        self,
        data: Any,
        state: dict,
        collect_custom_statistics_fn: Optional[Callable[[dict], None]] = None,
    ) -> dict:
        # A number for each of the ten digits; the largest is the most likely one.
        return {"digit": int(np.asarray(data).argmax())}
