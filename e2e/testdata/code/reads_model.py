from pathlib import Path


class Preprocess:
    def load(self, local_file_name):
        self.text = Path(local_file_name).read_text()

    def process(self, data, state, collect_custom_statistics_fn=None):
        return {"model": self.text}
