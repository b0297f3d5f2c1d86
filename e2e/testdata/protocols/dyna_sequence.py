"""The model "simple_dyna_sequence" of Triton's examples: the last answer adds the sequence's id."""


class Preprocess:
    def process(self, data, state, collect_custom_statistics_fn=None, request=None):
        value, parameters = data["INPUT"], request.parameters
        if parameters.get("sequence_start"):
            value = value + 1
        if parameters.get("sequence_end"):
            value = value + parameters["sequence_id"]
        return {"OUTPUT": value}
