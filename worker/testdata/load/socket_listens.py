# separate
import socket


class Preprocess:
    def load(self, path):
        self.server = socket.create_server(("127.0.0.1", 0))

    def process(self, data, state, collect):
        with socket.create_connection(self.server.getsockname()) as writes:
            writes.sendall(b"%08d" % data["n"])
            reads, _ = self.server.accept()
            with reads:
                return {"y": 7 * int(reads.recv(8)) + 3}
