# separate
import os
import signal


class Preprocess:
    def load(self, path):
        self.reads, writes = os.pipe()
        os.set_blocking(writes, False)
        signal.signal(signal.SIGUSR2, lambda *_: None)
        signal.set_wakeup_fd(writes)

    def process(self, data, state, collect):
        signal.raise_signal(signal.SIGUSR2)
        return {"y": 7 * data["n"] + 3 if os.read(self.reads, 1) == bytes([signal.SIGUSR2]) else -1}
