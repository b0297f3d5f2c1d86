"""An endpoint that does nothing: measures the service's own work for a request."""


class Preprocess:
    def process(self, data, state, collect_custom_statistics_fn=None):
        return {"y": 0}
