"""The model "simple_sequence" of Triton's examples: the first answer of a sequence adds one."""


class Preprocess:
    def process(self, data, state, collect_custom_statistics_fn=None, request=None):
        value = data["INPUT"]
        return {"OUTPUT": value + 1 if request.parameters.get("sequence_start") else value}
