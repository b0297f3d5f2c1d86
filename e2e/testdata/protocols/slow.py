"""A model that answers after some seconds."""

import time


class Preprocess:
    def process(self, data, state, collect_custom_statistics_fn=None):
        time.sleep(3)
        return data
