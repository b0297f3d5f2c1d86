"""A text pipeline for a model in the layout of Hugging Face: tokenize, run, label.

    {"text": "How do I open a socket?"}  ->  {"data": [[{"label": "network", "score": 0.97}, ...]]}

One text or a list of them; the answer has one list of labels per text, the most likely first.
"""

import json
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer


class Preprocess:
    """Loads the folder's tokenizer, weights and labels, and answers with a score for each label."""

    def load(self, local_file_name: str) -> Any:
        """Called once, with the path of the unpacked folder."""
        folder = Path(local_file_name)
        config = json.loads((folder / "config.json").read_text())
        self._labels = [config["id2label"][str(number)] for number in range(len(config["id2label"]))]
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_padding()
        self._tokenizer.enable_truncation(max_length=512)
        self._weights = load_file(folder / "model.safetensors")
        return self._weights

    def preprocess(
        self,
        body: dict,
        state: dict,
        collect_custom_statistics_fn: Optional[Callable[[dict], None]] = None,
    ) -> tuple:
        text = body.get("text")
        texts = [text] if isinstance(text, str) else text
        if not isinstance(texts, list) or not texts or not all(isinstance(one, str) for one in texts):
            # A ValueError becomes the client's answer: status 422 with this text.
            raise ValueError("the request needs 'text': a text, or a list of texts")
        encodings = self._tokenizer.encode_batch(texts, add_special_tokens=False)
        ids = np.array([encoding.ids for encoding in encodings], dtype=np.int32)
        mask = np.array([encoding.attention_mask for encoding in encodings], dtype=np.float32)
        return ids, mask

    def process(
        self,
        data: tuple,
        state: dict,
        collect_custom_statistics_fn: Optional[Callable[[dict], None]] = None,
    ) -> np.ndarray:
        """The network: the mean of the tokens' embeddings, a linear layer, and a softmax over the topics."""
        ids, mask = data
        tokens = self._weights["embedding.weight"][ids] * mask[:, :, None]
        mean = tokens.sum(axis=1) / np.maximum(mask.sum(axis=1), 1)[:, None]
        logits = mean @ self._weights["classifier.weight"].T + self._weights["classifier.bias"]
        scores = np.exp(logits - logits.max(axis=1, keepdims=True))
        return scores / scores.sum(axis=1, keepdims=True)

    def postprocess(
        self,
        data: np.ndarray,
        state: dict,
        collect_custom_statistics_fn: Optional[Callable[[dict], None]] = None,
    ) -> dict:
        return {"data": [self._ranking(row) for row in data]}

    def _ranking(self, row: np.ndarray) -> list:
        return [{"label": self._labels[i], "score": float(row[i])} for i in np.argsort(-row)]
