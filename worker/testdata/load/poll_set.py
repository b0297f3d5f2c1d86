# separate
import os
import select


class Preprocess:
    def load(self, path):
        self.poll = select.epoll()
        self.reads, self.writes = os.pipe()
        self.poll.register(self.reads, select.EPOLLIN)

    def process(self, data, state, collect):
        os.write(self.writes, b"%08d" % data["n"])
        number, _ = self.poll.poll(60)[0]
        return {"y": 7 * int(os.read(number, 8)) + 3}
