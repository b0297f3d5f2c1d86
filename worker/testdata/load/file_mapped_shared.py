# separate
import mmap
import os
import tempfile


class Preprocess:
    def load(self, path):
        with tempfile.TemporaryFile() as file:
            os.truncate(file.fileno(), 4096)
            self.room = mmap.mmap(file.fileno(), 4096)

    def process(self, data, state, collect):
        self.room[:8] = b"%08d" % data["n"]
        sum(range(2000))
        return {"y": 7 * int(self.room[:8]) + 3}
