# shared
import threading


class Preprocess:
    def load(self, path):
        self.lock, self.mine = threading.Lock(), threading.RLock()
        self.lock.acquire()
        self.mine.acquire()

    def process(self, data, state, collect):
        self.lock.release()
        with self.mine, self.lock:
            y = 7 * data["n"] + 3
        self.lock.acquire()
        return {"y": y}
