# separate
import os
from pathlib import Path


class Preprocess:
    def load(self, path):
        self.pid = Path("/proc/self").resolve().name

    def process(self, data, state, collect):
        return {"y": 7 * data["n"] + 3 if self.pid == str(os.getpid()) else -1}
