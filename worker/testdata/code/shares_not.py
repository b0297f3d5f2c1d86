"""Says that workers do not share what it loads, though they could."""


class Preprocess:
    share_loaded = False

    def process(self, data, state, collect):
        return data
