# separate
import fcntl


class Preprocess:
    def load(self, path):
        self.lines = open(path)
        fcntl.flock(self.lines, fcntl.LOCK_SH)

    def process(self, data, state, collect):
        self.lines.seek(8 * data["n"])
        return {"y": int(self.lines.readline())}
