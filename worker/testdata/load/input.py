# shared
import sys


class Preprocess:
    def load(self, path):
        self.input = sys.stdin

    def process(self, data, state, collect):
        return {"y": 7 * data["n"] + 3}
