# separate
import ctypes
import os
import tempfile


class Preprocess:
    def load(self, path):
        folder = tempfile.mkdtemp()
        self.name = os.path.join(folder, "n")
        libc = ctypes.CDLL(None)
        self.watch = libc.inotify_init()
        libc.inotify_add_watch(self.watch, folder.encode(), 0x8)  # a file that was written is closed

    def process(self, data, state, collect):
        with open(self.name, "w") as file:
            file.write(str(data["n"]))
        os.read(self.watch, 4096)
        with open(self.name) as file:
            return {"y": 7 * int(file.read()) + 3}
