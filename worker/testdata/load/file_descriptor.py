# separate
import os


class Preprocess:
    def load(self, path):
        self.lines = os.open(path, os.O_RDONLY)

    def process(self, data, state, collect):
        os.lseek(self.lines, 8 * data["n"], os.SEEK_SET)
        return {"y": int(os.read(self.lines, 8))}
