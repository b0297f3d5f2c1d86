# separate
import ctypes


class Preprocess:
    def load(self, path):
        libc = ctypes.CDLL(None)
        libc.malloc.restype = ctypes.c_void_p
        self.room = libc.malloc(8)

    def process(self, data, state, collect):
        ctypes.memmove(self.room, b"%08d" % data["n"], 8)
        return {"y": 7 * int(ctypes.string_at(self.room, 8)) + 3}
