# separate
import os


class Preprocess:
    def load(self, path):
        self.file = os.memfd_create("room")

    def process(self, data, state, collect):
        os.lseek(self.file, 0, os.SEEK_SET)
        os.write(self.file, b"%08d" % data["n"])
        os.lseek(self.file, 0, os.SEEK_SET)
        return {"y": 7 * int(os.read(self.file, 8)) + 3}
