"""Asks the endpoint with the official client, as the example of ClearML Serving 1.3.5 does."""

import os
import sys

from openai import OpenAI

model = sys.argv[1] if len(sys.argv) > 1 else "test_vllm"
base = os.environ.get("CLEARML_SERVING_URL", "http://127.0.0.1:8080/serve")
client = OpenAI(api_key="-", base_url=f"{base}/openai/v1")

chat = client.chat.completions.create(
    model=model,
    messages=[{"role": "system", "content": ""}, {"role": "user", "content": "Hi there!"}],
    temperature=1.0,
    max_tokens=64,
    top_p=1.0,
)
print("chat:", chat.choices[0].message.content)
completion = client.completions.create(model=model, prompt="Hi there!", temperature=1.0, max_tokens=64)
print("completion:", completion.choices[0].text)
body = {"stream": False, "model": model, "prompt": "test"}  # the original wants a body; it is not needed here
print("models:", *[m.id for m in client.models.list(extra_body=body).data])
