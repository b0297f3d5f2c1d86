# separate
import os


class Preprocess:
    def load(self, path):
        self.forked = False
        os.register_at_fork(after_in_child=self.note)

    def note(self):
        self.forked = True

    def process(self, data, state, collect):
        return {"y": 7 * data["n"] + 3 if not self.forked else -1}
