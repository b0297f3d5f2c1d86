"""A model of MLServer's content type datetime: the years."""

import numpy


class Preprocess:
    def process(self, data, state, collect_custom_statistics_fn=None):
        return {"years": numpy.array([moment.year for moment in data["when"].reshape(-1).tolist()])}
