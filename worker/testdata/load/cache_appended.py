# separate
import os
import tempfile


class Preprocess:
    def load(self, path):
        self.cache = os.path.join(tempfile.mkdtemp(), "cache")
        with open(self.cache, "a") as file:
            file.write("7")

    def process(self, data, state, collect):
        with open(self.cache) as file:
            return {"y": int(file.read()) * data["n"] + 3}
