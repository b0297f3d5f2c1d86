"""Settings of vLLM and a change of its requests, in the form of ClearML Serving 1.3.5."""

from typing import Any, Callable, Optional


class Preprocess:
    def __init__(self) -> None:
        """Create the state of this process; called once."""
        self.model_endpoint = None

    def load(self, local_file_name: str) -> Any:
        """Return settings, which become arguments of vLLM's command line. All may be left out."""
        return {
            "vllm_model_config": {
                "lora_modules": None,
                "prompt_adapters": None,
                "response_role": "assistant",
                "chat_template": None,
                "return_tokens_as_token_ids": False,
                "max_log_len": None,
            },
            "chat_settings": {
                "reasoning_parser": None,
                "enable_auto_tools": False,
                "expand_tools_even_if_tool_choice_none": False,
                "tool_parser": None,
                "enable_prompt_tokens_details": False,
                "enable_force_include_usage": False,
                "chat_template_content_format": "auto",
            },
        }

    async def preprocess(
        self,
        body: dict,
        state: dict,
        collect_custom_statistics_fn: Optional[Callable[[dict], None]] = None,
    ) -> Any:
        """Keep the last of several system messages at the beginning of a chat."""
        messages = body["request"].get("messages")
        if messages:
            first = 0
            while (
                first + 1 < len(messages)
                and messages[first]["role"] == messages[first + 1]["role"] == "system"
            ):
                first += 1
            body["request"]["messages"] = messages[first:]
        return body
