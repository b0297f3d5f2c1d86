"""A model of MLServer's content type pd: it gets a DataFrame."""


class Preprocess:
    def process(self, data, state, collect_custom_statistics_fn=None):
        return {
            "total": (data["price"] * data["count"]).to_numpy(),
            "label": data["name"].str.upper().tolist(),
        }
