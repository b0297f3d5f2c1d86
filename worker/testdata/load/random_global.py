# shared
import random


class Preprocess:
    def load(self, path):
        self.own = None

    def process(self, data, state, collect):
        self.own = self.own or random.random()
        return {"y": 7 * data["n"] + 3, "own": self.own}
