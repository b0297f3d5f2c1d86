"""Says things in every way, with and without a configured logging."""

import logging
import os
import subprocess
import sys
import threading
import warnings

print("printed at import")
logging.getLogger("early").error("an error while it loads")


class Preprocess:
    def process(self, data, state, collect=None):
        if data["do"] == "configure":
            logging.basicConfig(level=logging.DEBUG, format="%(name)s says %(message)s", force=True)
        if data["do"] == "speak":
            print("printed", "words")
            print("a line without end", end="")
            logging.debug("a debug line")
            logging.info("an info line")
            logging.warning("a warning line")
            logging.error("an error line")
            warnings.warn("a Python warning", stacklevel=1)
            try:
                int("no number")
            except ValueError:
                logging.exception("a failure")
            sys.stdout.write("two\nlines\n")
            subprocess.run(["echo", "from another program"], check=True)
            os.write(1, b"from the system\n")

            def fail():
                raise RuntimeError("in a thread")

            thread = threading.Thread(target=fail)
            thread.start()
            thread.join()
        if data["do"] == "redirect":
            kept = os.dup(1)
            file = os.open(data["to"], os.O_CREAT | os.O_WRONLY)
            os.dup2(file, 1)
            print("into a file")
            os.dup2(kept, 1)
        return data
