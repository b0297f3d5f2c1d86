import os

LOADED_BY = os.getpid()


class Preprocess:
    share_loaded = True  # the id of the process that has loaded is what the tests ask for

    def load(self, path):
        self.weights = bytearray(32 << 20)
        return None

    def process(self, data, state, collect):
        if data == b"die":
            os._exit(1)
        return [os.getpid(), LOADED_BY]
