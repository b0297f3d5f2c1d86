class Preprocess:
    def preprocess(self, body, state, collect_custom_statistics_fn=None):
        return [[body["x"]]]

    def postprocess(self, data, state, collect_custom_statistics_fn=None):
        return {"y": int(data[0])}
