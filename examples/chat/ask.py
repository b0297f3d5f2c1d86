"""Asks the endpoint with the official client: ask.py [ENDPOINT]."""

import os
import sys

from openai import OpenAI

model = sys.argv[1] if len(sys.argv) > 1 else "chat"
base = os.environ.get("CLEARML_SERVING_URL", "http://127.0.0.1:8080/serve")
client = OpenAI(base_url=f"{base}/openai/v1", api_key=os.environ.get("CLEARML_SERVING_KEY", "none"))
messages = [{"role": "user", "content": "What is the capital of France?"}]

answer = client.chat.completions.create(model=model, messages=messages, max_tokens=60)
print("answer:", answer.choices[0].message.content)
print("tokens:", answer.usage.prompt_tokens, "in,", answer.usage.completion_tokens, "out")

print("stream: ", end="")
for chunk in client.chat.completions.create(model=model, messages=messages, max_tokens=60, stream=True):
    print(chunk.choices[0].delta.content or "", end="", flush=True)
print()

response = client.responses.create(model=model, input="Say hello.", max_output_tokens=40)
print("response:", response.output_text)
