# separate
import ctypes
import os
import struct


class Preprocess:
    def load(self, path):
        self.event = ctypes.CDLL(None).eventfd(0, 0)

    def process(self, data, state, collect):
        os.write(self.event, struct.pack("Q", data["n"] + 1))
        return {"y": 7 * (struct.unpack("Q", os.read(self.event, 8))[0] - 1) + 3}
