# separate
class Preprocess:
    def load(self, path):
        self.lines = open(path)

    def process(self, data, state, collect):
        self.lines.seek(8 * data["n"])
        return {"y": int(self.lines.readline())}
