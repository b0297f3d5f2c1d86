"""Leaves two processes behind: a child, and one in another group and session."""

import subprocess
import sys

SLEEP = "import os, time; print(os.getpid(), flush=True); time.sleep(1000)"
DETACH = "import os; os.setsid(); os.fork() and os._exit(0); "


class Preprocess:
    def process(self, data, state, collect):
        child = subprocess.Popen([sys.executable, "-S", "-c", SLEEP], stdout=subprocess.PIPE)
        away = subprocess.Popen([sys.executable, "-S", "-c", DETACH + SLEEP], stdout=subprocess.PIPE)
        away.wait()
        return [int(child.stdout.readline()), int(away.stdout.readline())]
