"""Looks at a large body of bytes: its way to the code is the work."""


class Preprocess:
    def process(self, data, state, collect_custom_statistics_fn=None):
        return {"n": len(data), "last": data[-1]}
