# separate
LINES = open(__file__, "rb")


class Preprocess:
    def process(self, data, state, collect):
        LINES.seek(data["n"] % 16)
        first = LINES.read(4)
        LINES.seek(data["n"] % 16)
        return {"y": 7 * data["n"] + 3 if LINES.read(4) == first else -1}
