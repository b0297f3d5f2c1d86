# shared
import os


class Preprocess:
    def load(self, path):
        os.environ["SEVEN"] = "7"
        os.chdir("/")
        os.umask(0o77)

    def process(self, data, state, collect):
        return {"y": int(os.environ["SEVEN"]) * data["n"] + 3 if os.getcwd() == "/" else -1}
