import os

LOADED_BY = os.getpid()


class Preprocess:
    def load(self, path):
        self.weights = bytearray(32 << 20)
        return None

    def process(self, data, state, collect):
        if data == b"die":
            os._exit(1)
        return [os.getpid(), LOADED_BY]
