"""Keeps a core busy for two seconds a request, in Python: a bad neighbour."""

import time


class Preprocess:
    def process(self, data, state, collect_custom_statistics_fn=None):
        end = time.thread_time() + 2
        n = 0
        while time.thread_time() < end:
            n += 1
        return {"y": 0}
