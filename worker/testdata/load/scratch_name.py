# separate
import os
import tempfile


class Preprocess:
    def load(self, path):
        number, self.name = tempfile.mkstemp()
        os.close(number)

    def process(self, data, state, collect):
        with open(self.name, "w") as file:
            file.write(str(data["n"]))
        with open(self.name) as file:
            return {"y": 7 * int(file.read()) + 3}
