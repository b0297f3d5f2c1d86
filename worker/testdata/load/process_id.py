# separate
import os


class Preprocess:
    def load(self, path):
        self.pid = os.getpid()

    def process(self, data, state, collect):
        return {"y": 7 * data["n"] + 3 if self.pid == os.getpid() else -1}
