# shared
import logging


class Preprocess:
    def load(self, path):
        logging.warning("loaded")
        print("loaded")

    def process(self, data, state, collect):
        return {"y": 7 * data["n"] + 3}
