# separate
import signal


class Preprocess:
    def handle(self, number, frame):
        self.handled = True

    def load(self, path):
        self.handled = False
        signal.signal(signal.SIGHUP, self.handle)

    def process(self, data, state, collect):
        self.handled = False
        signal.raise_signal(signal.SIGHUP)
        return {"y": 7 * data["n"] + 3 if self.handled else -1}
