"""A model that answers any JSON with itself; of KServe's protocol V1, the instances."""


class Preprocess:
    def process(self, data, state, collect_custom_statistics_fn=None):
        return data.get("instances", data) if isinstance(data, dict) else data
