import os
import threading


class Preprocess:
    def load(self, path):
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        return None

    def process(self, data, state, collect):
        return os.getpid()
