"""Changes the messages of a language model: a system message before, masked words after, in streams too."""

from typing import Any, Callable, Optional

SYSTEM = "You are a helpful assistant."
MASKED = ("password", "secret")


class Preprocess:
    def preprocess(
        self, body: dict, state: dict, collect_custom_statistics_fn: Optional[Callable[[dict], None]] = None
    ) -> Any:
        """Get the client's request, and return the one that the model gets."""
        request = body.get("request", body)  # with --engine vllm it is inside of a dict
        messages = request.get("messages")
        if messages and messages[0].get("role") != "system":
            messages.insert(0, {"role": "system", "content": SYSTEM})
        return body

    def postprocess(
        self, data: dict, state: dict, collect_custom_statistics_fn: Optional[Callable[[dict], None]] = None
    ) -> Any:
        """Get the model's answer, or each event of a stream, and return what the client gets."""
        for choice in data.get("choices", ()):
            part = choice.get("message") or choice.get("delta") or {}
            text = part.get("content")
            if text:
                for word in MASKED:
                    text = text.replace(word, "*" * len(word))
                part["content"] = text
        return data
