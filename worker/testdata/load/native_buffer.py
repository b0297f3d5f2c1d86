# shared
import ctypes


class Preprocess:
    def load(self, path):
        self.room = ctypes.create_string_buffer(9)

    def process(self, data, state, collect):
        self.room.value = b"%08d" % data["n"]
        return {"y": 7 * int(self.room.value) + 3}
