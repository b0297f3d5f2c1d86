import ctypes
import os
import time


class Preprocess:
    def process(self, data, state, collect_custom_statistics_fn=None):
        how = data.get("how")
        if how == "exit":
            os._exit(3)
        if how == "segv":
            ctypes.string_at(0)
        if how == "sleep":
            time.sleep(data["seconds"])
        if how == "print":
            print("x" * 1000 * 1000 * data["megabytes"])
        return {"pid": os.getpid()}
