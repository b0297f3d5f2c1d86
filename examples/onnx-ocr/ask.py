"""Reads the text in an image with the served graph.

python3 examples/onnx-ocr/ask.py [--url URL] IMAGE
"""

import argparse
import base64
import json
import urllib.request
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("image", type=Path)
    parser.add_argument("--url", default="http://127.0.0.1:8080/serve/ocr")
    arguments = parser.parse_args()
    body = {"image": base64.b64encode(arguments.image.read_bytes()).decode()}
    request = urllib.request.Request(
        arguments.url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        answer = json.load(response)
    for text, score, turned in zip(
        answer.get("texts", []), answer.get("scores", []), answer.get("turned", [])
    ):
        print(f"{score:.2f} {text}{' (upside down)' if turned else ''}")


if __name__ == "__main__":
    main()
