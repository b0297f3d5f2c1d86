# shared
COUNT = 0


class Preprocess:
    def load(self, path):
        global COUNT
        COUNT += 7

    def process(self, data, state, collect):
        global COUNT
        COUNT += 1
        return {"y": 7 * data["n"] + 3, "count": COUNT}
