# separate
import secrets

OWN = secrets.token_hex()


class Preprocess:
    def process(self, data, state, collect):
        return {"y": 7 * data["n"] + 3, "own": OWN}
