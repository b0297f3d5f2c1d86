def deep():
    raise RuntimeError("no luck today")


class Preprocess:
    def load(self, path):
        deep()
