# shared
import contextvars

SEVEN = contextvars.ContextVar("seven", default=0)


class Preprocess:
    def load(self, path):
        SEVEN.set(7)

    def process(self, data, state, collect):
        return {"y": SEVEN.get() * data["n"] + 3}
