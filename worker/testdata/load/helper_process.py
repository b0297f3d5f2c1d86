# separate
import subprocess
import sys

ECHO = "import sys\nfor line in sys.stdin: print(7 * int(line) + 3, flush=True)"


class Preprocess:
    def load(self, path):
        self.helper = subprocess.Popen(
            [sys.executable, "-c", ECHO], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def process(self, data, state, collect):
        self.helper.stdin.write(f"{data['n']}\n")
        self.helper.stdin.flush()
        return {"y": int(self.helper.stdout.readline())}
