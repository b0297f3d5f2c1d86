# separate
import queue
import threading


class Preprocess:
    def load(self, path):
        self.asked, self.answered = queue.Queue(), queue.Queue()
        threading.Thread(target=self.work, daemon=True).start()

    def work(self):
        while True:
            self.answered.put(7 * self.asked.get() + 3)

    def process(self, data, state, collect):
        self.asked.put(data["n"])
        return {"y": self.answered.get(timeout=60)}
