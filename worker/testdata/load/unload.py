# separate
class Preprocess:
    def load(self, path):
        self.seven = 7

    def process(self, data, state, collect):
        return {"y": self.seven * data["n"] + 3}

    def unload(self):
        del self.seven
