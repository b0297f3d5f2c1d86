"""Triton's decoupled model repeat_int32: an answer for each element of IN, after its DELAY (ms)."""

import time


class Preprocess:
    def process(self, data, state, collect_custom_statistics_fn=None):
        def answers():
            for at, delay in enumerate(data["DELAY"].tolist()):
                time.sleep(delay / 1000)
                yield {"OUT": data["IN"][at : at + 1]}

        return answers()
