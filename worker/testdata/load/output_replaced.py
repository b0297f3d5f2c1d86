# separate
import io
import sys


class Preprocess:
    def load(self, path):
        self.kept = sys.stdout = io.StringIO()

    def process(self, data, state, collect):
        self.kept.seek(0)
        self.kept.truncate()
        print(data["n"])
        return {"y": 7 * int(self.kept.getvalue()) + 3}
