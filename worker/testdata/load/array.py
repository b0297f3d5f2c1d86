# shared
import numpy


class Preprocess:
    def load(self, path):
        self.weights = numpy.array([7.0, 3.0]) @ numpy.eye(2)

    def process(self, data, state, collect):
        return {"y": int(self.weights @ [data["n"], 1])}
