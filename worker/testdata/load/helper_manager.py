# separate
import multiprocessing


class Preprocess:
    def load(self, path):
        self.manager = multiprocessing.get_context("fork").Manager()
        self.room = self.manager.dict()

    def process(self, data, state, collect):
        self.room["n"] = data["n"]
        return {"y": 7 * self.room["n"] + 3}
