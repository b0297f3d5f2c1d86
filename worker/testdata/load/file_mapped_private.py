# separate
import mmap


class Preprocess:
    def load(self, path):
        with open(path, "rb") as file:
            self.lines = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)

    def process(self, data, state, collect):
        self.lines[:8] = b"%08d" % data["n"]
        return {"y": 7 * int(self.lines[:8]) + 3}
