"""Answers with what it was asked; some questions do harm."""

import ctypes
import os
import signal
import sys
import threading
import time


class Preprocess:
    def __init__(self):
        self.count = 0

    def load(self, path):
        print("loading", path)
        return None

    def process(self, data, state, collect):
        self.count += 1
        if not isinstance(data, dict):
            return data
        do = data.get("do")
        if do == "exit":
            os._exit(int(data["code"]))
        if do == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if do == "segv":
            ctypes.string_at(0)
        if do == "sleep":
            time.sleep(data["seconds"])
        if do == "wait":  # until the test makes the file
            while not os.path.exists(data["for"]):
                time.sleep(0.001)
        if do == "step":  # of the wall clock
            shown = time.time
            time.time = lambda: shown() + data["seconds"]
        if do == "spin":
            while True:
                pass
        if do == "raise":
            raise RuntimeError(data["text"])
        if do == "fatal":
            raise RuntimeError("CUDA out of memory. Tried to allocate")
        if do == "value":
            raise ValueError(data["text"])
        if do == "print":
            for i in range(data["lines"]):
                print(f"{i} " + "x" * data["width"])
            sys.stderr.write("done printing\n")
        if do == "pid":
            return os.getpid()
        if do == "count":
            return self.count
        if do == "env":
            return dict(os.environ)
        if do == "cwd":
            return os.getcwd()
        if do == "fds":
            return sorted(
                n + " " + os.readlink(f"/proc/self/fd/{n}")
                for n in os.listdir("/proc/self/fd")
                if os.path.exists(f"/proc/self/fd/{n}")
            )
        if do == "threads":
            return len(os.listdir("/proc/self/task"))
        if do == "bytes":
            return "y" * data["size"]
        if do == "collect":
            collect({"seen": 1})
        if do == "call":
            return self.send_request(data["to"], data=data["data"], raise_on_error=data.get("strict", False))
        if do == "calls":  # from threads, while the main thread waits for them
            results = [None] * data["width"]

            def ask(i):
                results[i] = self.send_request(data["to"], data=data["data"])

            threads = [threading.Thread(target=ask, args=(i,)) for i in range(data["width"])]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
            return results
        if do == "stream":
            return self.stream(data)
        return data

    def stream(self, data):
        for i in range(data["pieces"]):
            if data.get("fail") == i:
                raise RuntimeError("stream broke")
            if data.get("die") == i:
                os._exit(3)
            yield f"{i}:" + "z" * data["width"] + "\n"

    def unload(self):
        print("unloaded")
