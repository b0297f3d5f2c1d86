# separate
import os


class Preprocess:
    def load(self, path):
        self.reads, self.writes = os.pipe()

    def process(self, data, state, collect):
        os.write(self.writes, b"%08d" % data["n"])
        return {"y": 7 * int(os.read(self.reads, 8)) + 3}
