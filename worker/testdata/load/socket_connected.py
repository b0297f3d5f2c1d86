# separate
import socket


class Preprocess:
    def load(self, path):
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.writes = socket.create_connection(server.getsockname())
            self.reads, _ = server.accept()

    def process(self, data, state, collect):
        self.writes.sendall(b"%08d" % data["n"])
        return {"y": 7 * int(self.reads.recv(8)) + 3}
