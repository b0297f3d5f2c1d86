# separate
import ctypes
import os
import struct


class Preprocess:
    def load(self, path):
        self.libc = ctypes.CDLL(None)
        self.timer = self.libc.timerfd_create(1, 0)
        self.libc.timerfd_settime(self.timer, 0, struct.pack("qqqq", 0, 1_000_000, 0, 1_000_000), None)

    def process(self, data, state, collect):
        return {"y": 7 * data["n"] + 3 if struct.unpack("Q", os.read(self.timer, 8))[0] else -1}
