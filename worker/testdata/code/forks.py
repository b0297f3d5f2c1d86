"""Forks at each request; the child does what the question says."""

import ctypes
import os
import sys
import threading


class Preprocess:
    where = "process"

    def load(self, path):
        self.loaded_by = os.getpid()
        if os.environ.get("FORK_IN_LOAD"):
            self.fork("return")

    def fork(self, do):
        if do == "native":
            child = ctypes.CDLL(None).fork()
        else:
            child = os.fork()
        if child:
            if do != "leave_zombie":
                os.waitpid(child, 0)
            return
        if do == "exit":
            sys.exit(3)
        if do == "raise":
            raise RuntimeError("the child's own failure")
        if do == "ask":
            self.send_request("other", data={"from": "the child"})

    def preprocess(self, data, state, collect=None):
        if data.get("in") == "preprocess":
            self.fork(data["do"])
        return data

    def process(self, data, state, collect=None):
        if data.get("in") == "process":
            self.fork(data["do"])
        if data.get("in") == "thread":
            thread = threading.Thread(target=self.fork, args=(data["do"],))
            thread.start()
            thread.join()
        if data.get("in") == "stream":
            return self.pieces(data)
        return {"n": data["n"], "pid": os.getpid()}

    def process_batch(self, data, states, collects):
        return [self.process(one, None) for one in data]

    def postprocess(self, data, state, collect=None):
        return data

    def pieces(self, data):
        for i in range(3):
            self.fork(data["do"])
            yield f"{i},"
