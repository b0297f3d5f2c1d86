# separate
import mmap


class Preprocess:
    def load(self, path):
        self.room = mmap.mmap(-1, 4096)

    def process(self, data, state, collect):
        self.room[:8] = b"%08d" % data["n"]
        sum(range(2000))
        return {"y": 7 * int(self.room[:8]) + 3}
