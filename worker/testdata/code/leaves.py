"""Writes down how far a request gets, and waits where it is told to."""

import os
import threading
import time


class Preprocess:
    def note(self, data, what):
        with open(data["notes"], "a") as file:
            file.write(what + "\n")

    def stay(self, data, place):
        """Wait until the test lets go, if it is to be here."""
        self.note(data, place)
        if data["at"] == place:
            while not os.path.exists(data["gate"]):
                time.sleep(0.001)

    def preprocess(self, body, state, collect):
        if body.get("do") == "pid":
            return body
        self.stay(body, "preprocess")
        return body

    def process(self, data, state, collect):
        if data.get("do") == "pid":
            return {"pid": os.getpid()}
        self.stay(data, "process")
        if data["at"] == "call":
            try:
                self.note(data, "call")
                self.send_request("other", data={"do": "wait", "for": data["gate"]})
                self.note(data, "called")
            except Exception:
                self.note(data, "except")
            finally:
                self.note(data, "finally")
                self.note(data, f"cleaned {self.send_request('quick', data=7)}")
        if data["at"] == "swallowed":
            try:
                self.note(data, "swallowed")
                self.send_request("other", data={"do": "wait", "for": data["gate"]})
            except BaseException:
                self.note(data, "except")
        if data["at"] == "thread":
            answers = []
            thread = threading.Thread(target=lambda: answers.append(self.send_request("quick", data=7)))
            self.note(data, "thread")
            while not os.path.exists(data["gate"]):
                time.sleep(0.001)
            thread.start()
            thread.join()
            self.note(data, f"answers {answers}")
        if data["at"] in ("stream", "stream call"):
            return self.stream(data)
        return data

    def postprocess(self, data, state, collect):
        if isinstance(data, dict) and "pid" not in data:
            self.note(data, "postprocess")
        return data

    def stream(self, data):
        try:
            yield "begun\n"
            while True:
                self.note(data, "piece")
                if data["at"] == "stream call":
                    self.note(data, "stream call")
                    self.send_request("other", data={"do": "wait", "for": data["gate"]})
                time.sleep(0 if data.get("width") else 0.001)
                yield "x" * data.get("width", 1)
        finally:
            self.note(data, "closed")
