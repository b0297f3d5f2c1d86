# separate
import faulthandler


class Preprocess:
    def load(self, path):
        faulthandler.dump_traceback_later(3600)

    def process(self, data, state, collect):
        return {"y": 7 * data["n"] + 3}
