class Preprocess:
    def preprocess(self, body, state, collect_custom_statistics_fn=None):
        return [body["row"]]

    def postprocess(self, data, state, collect_custom_statistics_fn=None):
        return {"y": float(data[0])}
