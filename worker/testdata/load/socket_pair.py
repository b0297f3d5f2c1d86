# separate
import socket


class Preprocess:
    def load(self, path):
        self.reads, self.writes = socket.socketpair()

    def process(self, data, state, collect):
        self.writes.sendall(b"%08d" % data["n"])
        return {"y": 7 * int(self.reads.recv(8)) + 3}
