import json


class Preprocess:
    def load(self, local_file_name):
        with open(local_file_name) as f:
            self.line = json.load(f)

    def process(self, data, state, collect_custom_statistics_fn=None):
        return {"y": self.line["slope"] * data["x"] + self.line["offset"]}
