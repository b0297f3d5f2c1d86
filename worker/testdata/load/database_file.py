# separate
import os
import sqlite3
import tempfile


class Preprocess:
    def load(self, path):
        self.folder = tempfile.mkdtemp()
        self.db = sqlite3.connect(os.path.join(self.folder, "db"), isolation_level=None)
        self.db.execute("create table t (n)")

    def process(self, data, state, collect):
        self.db.execute("delete from t")
        self.db.execute("insert into t values (?)", (data["n"],))
        return {"y": 7 * self.db.execute("select n from t").fetchone()[0] + 3}
