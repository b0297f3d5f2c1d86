"""A model whose answer is a stream of texts."""


class Preprocess:
    def process(self, data, state, collect_custom_statistics_fn=None):
        def pieces():
            for n in range(data["count"]):
                yield f"piece {n}\n"

        return pieces()
