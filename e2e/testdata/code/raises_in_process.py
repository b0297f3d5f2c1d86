class Preprocess:
    def process(self, data, state, collect_custom_statistics_fn=None):
        if data.get("kind") == "value":
            raise ValueError("x0 must not be negative")
        raise KeyError("weights")
