"""Searches sentences by their meaning: ask.py [ENDPOINT]."""

import os
import sys

from openai import OpenAI

SENTENCES = [
    "A man is playing a guitar.",
    "The stock market fell on Monday.",
    "The cat sleeps on the sofa.",
    "Add two eggs and stir the dough.",
]
model = sys.argv[1] if len(sys.argv) > 1 else "sentences"
base = os.environ.get("CLEARML_SERVING_URL", "http://127.0.0.1:8080/serve")
client = OpenAI(base_url=f"{base}/openai/v1", api_key=os.environ.get("CLEARML_SERVING_KEY", "none"))


def vectors(texts: list[str]) -> list[list[float]]:
    return [item.embedding for item in client.embeddings.create(model=model, input=texts).data]


known = vectors(SENTENCES)
for question in ("someone makes music", "share prices", "a pet", "baking a cake"):
    (asked,) = vectors([question])
    scores = [sum(a * b for a, b in zip(asked, vector)) for vector in known]
    best = max(range(len(SENTENCES)), key=scores.__getitem__)
    print(f"{question}: {SENTENCES[best]} ({scores[best]:.2f})")
