# separate
import os
import struct


class Preprocess:
    def load(self, path):
        ours, self.questions = os.pipe()
        self.answers, theirs = os.pipe()
        if os.fork() == 0:
            while True:
                asked = os.read(ours, 8)
                if not asked:
                    os._exit(0)
                os.write(theirs, struct.pack("q", 7 * struct.unpack("q", asked)[0] + 3))

    def process(self, data, state, collect):
        os.write(self.questions, struct.pack("q", data["n"]))
        return {"y": struct.unpack("q", os.read(self.answers, 8))[0]}
