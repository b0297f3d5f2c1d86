"""A model of MLServer's content type str: the words in capitals."""


class Preprocess:
    def process(self, data, state, collect_custom_statistics_fn=None):
        words = data["text"] if isinstance(data, dict) else data
        words = words.reshape(-1).tolist() if hasattr(words, "reshape") else words
        return {"capitals": [word.upper() for word in words]}
