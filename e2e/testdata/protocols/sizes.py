"""A model of MLServer's content type base64: the sizes of its elements."""

import numpy


class Preprocess:
    def process(self, data, state, collect_custom_statistics_fn=None):
        return {"sizes": numpy.array([len(piece) for piece in data["data"].reshape(-1).tolist()])}
