"""Takes of the machine what it is asked to take."""

import ctypes
import mmap
import os
import signal
import subprocess
import sys
import threading
import time


class Preprocess:
    def __init__(self):
        self.held = []

    def process(self, data, state, collect):
        do = data["do"]
        if do == "pid":
            return os.getpid()
        if do == "hold":  # so many bytes that are really taken
            block = mmap.mmap(-1, data["bytes"])
            for at in range(0, data["bytes"], 4096):
                block[at] = 1
            self.held.append(block)
            if data.get("stay"):
                time.sleep(1000)
            return len(self.held)
        if do == "threads":
            for _ in range(data["count"]):
                threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
            return data["count"]
        if do == "fork":
            for _ in range(data["count"]):
                if os.fork() == 0:
                    time.sleep(1000)
                    os._exit(0)
            time.sleep(1000)
        if do == "hide":  # processes that nobody below us is the parent of
            for _ in range(data["count"]):
                child = os.fork()
                if child == 0:
                    os.setsid()
                    if os.fork() == 0:
                        time.sleep(1000)
                    os._exit(0)
                os.waitpid(child, 0)
            time.sleep(1000)
        if do == "close":  # its output
            os.close(1)
            os.close(2)
            return os.getpid()
        if do == "deaf":  # every signal that can be blocked, and the interpreter's lock is kept
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            ctypes.PyDLL(None).sleep(1000)
        if do == "leave":  # a child, and one that leaves group, session, and environment
            code = "import os, time; print(os.getpid(), flush=True); time.sleep(1000)"
            child = subprocess.Popen([sys.executable, "-S", "-c", code], stdout=subprocess.PIPE)
            away = subprocess.Popen(
                [sys.executable, "-S", "-c", f"import os; os.setsid(); os.fork() and os._exit(0); {code}"],
                stdout=subprocess.PIPE,
                env={},
            )
            away.wait()
            return [int(child.stdout.readline()), int(away.stdout.readline())]
        time.sleep(data.get("seconds", 0))
        return data
