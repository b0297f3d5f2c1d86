# shared
import itertools


def squares():
    for n in itertools.count():
        yield n * n


class Preprocess:
    def load(self, path):
        self.squares, self.done = squares(), 0
        next(self.squares)

    def process(self, data, state, collect):
        self.done += 1
        return {"y": 7 * data["n"] + 3 if next(self.squares) == self.done**2 else -1}
