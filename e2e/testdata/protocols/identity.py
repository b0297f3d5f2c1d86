"""A model that answers with its only input, whatever it is."""


class Preprocess:
    def process(self, data, state, collect_custom_statistics_fn=None):
        (value,) = data.values()
        return {"OUTPUT0": value}
