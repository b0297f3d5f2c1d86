# separate
import os
import tempfile
import zipfile


class Preprocess:
    def load(self, path):
        name = os.path.join(tempfile.mkdtemp(), "lines.zip")
        with zipfile.ZipFile(name, "w") as archive:
            archive.write(path, "lines")
        self.archive = zipfile.ZipFile(name)

    def process(self, data, state, collect):
        with self.archive.open("lines") as lines:
            lines.seek(8 * data["n"])
            return {"y": int(lines.read(8))}
