# separate
import atexit


class Preprocess:
    def load(self, path):
        atexit.register(print, "at exit")

    def process(self, data, state, collect):
        return {"y": 7 * data["n"] + 3}
