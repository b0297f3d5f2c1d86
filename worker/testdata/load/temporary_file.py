# separate
import tempfile


class Preprocess:
    def load(self, path):
        self.file = tempfile.NamedTemporaryFile()

    def process(self, data, state, collect):
        self.file.seek(0)
        self.file.write(b"%08d" % data["n"])
        self.file.flush()
        with open(self.file.name) as file:
            return {"y": 7 * int(file.read(8)) + 3}
