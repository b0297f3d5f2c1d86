"""The model "simple" of Triton's examples: the sum and the difference of two inputs."""


class Preprocess:
    def process(self, data, state, collect_custom_statistics_fn=None):
        first, second = data["INPUT0"], data["INPUT1"]
        return {"OUTPUT0": first + second, "OUTPUT1": first - second}
