"""Needs a variable of the environment."""

import os


class Preprocess:
    def load(self, path):
        self.token = os.environ["MY_TOKEN"]

    def process(self, data, state, collect=None):
        return os.environ["OTHER_TOKEN"]
