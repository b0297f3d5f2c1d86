"""The model "simple_string_dyna_sequence" of Triton's examples: sums, the last one plus the sequence's id."""


class Preprocess:
    def __init__(self):
        self.sums = {}

    def process(self, data, state, collect_custom_statistics_fn=None, request=None):
        parameters = request.parameters
        name = parameters["sequence_id"]
        before = 0 if parameters.get("sequence_start") else self.sums[name]
        total = self.sums[name] = before + data["INPUT"]
        if parameters.get("sequence_end"):
            total = self.sums.pop(name) + int(name)
        return {"OUTPUT": total}
