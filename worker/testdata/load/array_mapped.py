# separate
import numpy


class Preprocess:
    def load(self, path):
        self.lines = numpy.memmap(path, mode="r")

    def process(self, data, state, collect):
        return {"y": int(bytes(self.lines[8 * data["n"] : 8 * data["n"] + 7]))}
