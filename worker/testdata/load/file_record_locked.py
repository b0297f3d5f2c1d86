# separate
import fcntl
import os
import tempfile


class Preprocess:
    def load(self, path):
        self.file = tempfile.TemporaryFile()
        fcntl.lockf(self.file, fcntl.LOCK_EX)  # a fork does not inherit it

    def process(self, data, state, collect):
        number = self.file.fileno()
        os.pwrite(number, b"%08d" % data["n"], 0)
        return {"y": 7 * int(os.pread(number, 8, 0)) + 3}
