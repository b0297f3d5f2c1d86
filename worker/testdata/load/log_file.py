# separate
import logging
import os
import tempfile


class Preprocess:
    def load(self, path):
        self.name = os.path.join(tempfile.mkdtemp(), "log")
        self.log = logging.getLogger("endpoint")
        self.log.addHandler(logging.FileHandler(self.name))

    def process(self, data, state, collect):
        self.log.warning("%d", data["n"])
        with open(self.name) as file:
            return {"y": 7 * int(file.read().split()[-1]) + 3}
