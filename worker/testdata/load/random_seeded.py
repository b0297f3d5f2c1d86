# separate
import random

FIRST = random.Random(7).random()


class Preprocess:
    def load(self, path):
        random.seed(7)
        self.first = None

    def process(self, data, state, collect):
        if self.first is None:
            self.first = random.random()
        return {"y": 7 * data["n"] + 3 if self.first == FIRST else -1}
