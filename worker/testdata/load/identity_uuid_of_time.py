# separate
import uuid


class Preprocess:
    def load(self, path):
        self.own = str(uuid.uuid1())

    def process(self, data, state, collect):
        return {"y": 7 * data["n"] + 3, "own": self.own}
