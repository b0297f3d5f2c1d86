"""What clients of the service do: they ask, and tell later what turned out to be true.

clients.py URL              sends the tumours of the new device, and then their truths
clients.py URL --unseen     waits until URL answers, and prints how often it is right
"""

import argparse
import time

import requests
from preprocess import FEATURES
from tumours import measured

START_LIMIT = 60  # seconds


def ask(url: str, row: list, request_id: str) -> int:
    """Ask the endpoint about one tumour."""
    end = time.monotonic() + START_LIMIT
    while True:
        answer = requests.post(
            url, json=dict(zip(FEATURES, row)), headers={"X-Request-Id": request_id}, timeout=60
        )
        if answer.status_code in (404, 503) and time.monotonic() < end:
            time.sleep(0.2)  # a new version is still being loaded
            continue
        answer.raise_for_status()
        return answer.json()["y"]


arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
arguments.add_argument("url")
arguments.add_argument("--unseen", action="store_true")
chosen = arguments.parse_args()

part = "unseen" if chosen.unseen else "served"
rows, truths = measured(part)
predicted = [ask(chosen.url, row, f"{part}-{i}") for i, row in enumerate(rows.tolist())]
right = sum(int(y == truth) for y, truth in zip(predicted, truths)) / len(rows)
print(f"test: {right:.3f} of {len(rows)} answers are right")
if chosen.unseen:
    assert right > 0.85, "the new version is not better"
else:
    feedback = [{"request_id": f"{part}-{i}", "truth": int(truth)} for i, truth in enumerate(truths)]
    told = requests.post(chosen.url.replace("/serve/", "/feedback/"), json=feedback, timeout=60)
    told.raise_for_status()
    print(f"test: feedback {told.json()}")
