# separate
import multiprocessing


class Preprocess:
    def load(self, path):
        self.value = multiprocessing.Value("i", 0)

    def process(self, data, state, collect):
        self.value.value = data["n"]
        sum(range(2000))
        return {"y": 7 * self.value.value + 3}
