"""The model "simple_string" of Triton's examples: sum and difference of integers that are written as text."""

import numpy


def written(values):
    return numpy.array([str(value).encode() for value in values.reshape(-1)], dtype=object).reshape(
        values.shape
    )


class Preprocess:
    def process(self, data, state, collect_custom_statistics_fn=None):
        first, second = (data[name].astype(numpy.int64) for name in ("INPUT0", "INPUT1"))
        return {"OUTPUT0": written(first + second), "OUTPUT1": written(first - second)}
