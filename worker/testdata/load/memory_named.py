# separate
from multiprocessing import shared_memory


class Preprocess:
    def load(self, path):
        self.room = shared_memory.SharedMemory(create=True, size=64)

    def process(self, data, state, collect):
        self.room.buf[:8] = b"%08d" % data["n"]
        sum(range(2000))
        return {"y": 7 * int(bytes(self.room.buf[:8])) + 3}

    def unload(self):
        self.room.close()
        self.room.unlink()
