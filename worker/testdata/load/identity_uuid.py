# separate
from uuid import uuid4


class Preprocess:
    def load(self, path):
        self.own = str(uuid4())

    def process(self, data, state, collect):
        return {"y": 7 * data["n"] + 3, "own": self.own}
