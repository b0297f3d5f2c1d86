class Preprocess:
    """Asks two other endpoints and adds their answers."""

    def process(self, data, state, collect_custom_statistics_fn=None):
        a = self.send_request(endpoint="part_a", version=None, data=data)
        b = self.send_request(endpoint="/part_b/", version=None, data=data)
        return {"sum": a["echo"]["x"] + b["echo"]["x"]}
