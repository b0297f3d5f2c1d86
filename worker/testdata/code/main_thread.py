"""Uses what only the main thread may use: signal handlers, and handles that are bound to their thread."""

import signal
import sqlite3
import threading


class Preprocess:
    def load(self, path):
        self.database = sqlite3.connect(":memory:")
        return self

    def predict(self, rows):
        return rows

    def check(self):
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("not on the main thread")
        signal.signal(signal.SIGALRM, lambda *_: None)
        signal.alarm(5)
        self.database.execute("select 1").fetchone()
        signal.alarm(0)

    def preprocess(self, body, state, collect=None):
        self.check()
        return body

    def process(self, data, state, collect=None):
        self.check()
        self.predict([[data["x"]]])
        return data

    def postprocess(self, data, state, collect=None):
        self.check()
        return data
