"""Tells the priority at which it was loaded, and the one at which it answers."""

import os
import signal


class Preprocess:
    def load(self, path):
        self.loaded = os.getpriority(os.PRIO_PROCESS, 0)

    def process(self, data, state, collect):
        if data == {"do": "die"}:
            os.kill(os.getpid(), signal.SIGKILL)
        return [self.loaded, os.getpriority(os.PRIO_PROCESS, 0)]
