# separate
import multiprocessing


class Preprocess:
    def load(self, path):
        self.free = multiprocessing.Semaphore(1)

    def process(self, data, state, collect):
        if not self.free.acquire(block=False):  # this process has one request at a time
            return {"y": -1}
        sum(range(2000))
        self.free.release()
        return {"y": 7 * data["n"] + 3}
