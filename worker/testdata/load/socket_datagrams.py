# separate
import socket


class Preprocess:
    def load(self, path):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))

    def process(self, data, state, collect):
        self.socket.sendto(b"%08d" % data["n"], self.socket.getsockname())
        return {"y": 7 * int(self.socket.recv(8)) + 3}
