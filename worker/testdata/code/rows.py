class Preprocess:
    def preprocess(self, body, state, collect):
        return [body["x"]]

    def postprocess(self, data, state, collect):
        return {"y": data.tolist()}
