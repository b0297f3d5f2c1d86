"""A model of Triton's Python backend that cannot be loaded."""


class TritonPythonModel:
    def initialize(self, args):
        raise RuntimeError("the weights are missing")

    def execute(self, requests):
        return []
