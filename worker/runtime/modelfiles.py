"""Identifies a model file by its content, if an engine cannot load it."""

from __future__ import annotations

import os
import re
from typing import Callable, NamedTuple, Optional

HEAD = 64 << 10
MOST = 64 << 20
PICKLE = re.compile(rb"\x80[\x02-\x05]|c[\w.]+\n")  # protocols 0 and 1 are recognised only by the first opcode
PICKLED = re.compile(rb"\bc?(sklearn|xgboost|lightgbm|catboost|torch|keras|tensorflow|statsmodels)\b")
NAMES = {
    "sklearn": "scikit-learn",
    "xgboost": "XGBoost",
    "lightgbm": "LightGBM",
    "catboost": "CatBoost",
    "torch": "PyTorch",
    "keras": "Keras",
    "tensorflow": "TensorFlow",
}
CODE = (
    "use --engine custom with a Preprocess class whose load(self, local_file_name) returns the model and whose process "
    "predicts with it"
)
TRITON = f"use --engine triton, or {CODE}"


class Kind(NamedTuple):
    """The type of a file, the engine that reads it ("" for none), and the remedy if there is none."""

    what: str
    engine: str = ""
    cure: str = CODE


def cure(path: str, engine: str) -> str:
    """Name the file's type and the engine that reads it; "" if unknown or if the engine should read it."""
    try:
        kind = kind_of(path)
    except Exception:  # only a hint: the load's error is reported
        return ""
    if kind is None:
        return ""
    if kind.engine == engine:
        return f"it looks like {kind.what}, but it is damaged, or another release of the library has made it"
    return f"it is {kind.what}: {f'use --engine {kind.engine}' if kind.engine else kind.cure}"


def kind_of(path: str) -> Optional[Kind]:
    """Return the file's type, None if unknown."""
    with open(path, "rb") as file:
        head = file.read(HEAD)
    if not head:
        return Kind("an empty file", cure="upload the model again")
    for known in (_archive, _json, _by_beginning, _pickle):
        kind = known(path, head)
        if kind is not None:
            return kind
    if path.lower().endswith(".onnx") or (head[:1] == b"\x08" and b"onnx" in head[:256]):
        return Kind("an ONNX model", engine="onnx")
    return None


def content_of(path: str) -> bytes:
    """Return the first megabytes of a file, unpacked if joblib has compressed it."""
    with open(path, "rb") as file:
        return _unpacked(file.read(MOST), MOST)


def _by_beginning(_path: str, head: bytes) -> Optional[Kind]:
    if head.startswith(b"{L") and b"learner" in head[:64]:
        return Kind("an XGBoost model saved as UBJSON", "xgboost")
    if head.startswith(b"tree\n") and b"version=" in head[:64]:
        return Kind("a LightGBM model saved as text", "lightgbm")
    if head.startswith(b"binf"):
        return Kind(
            "an XGBoost model in the binary format of old releases",
            cure="load it with a release before 3.1 and save it with save_model('model.json')",
        )
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return Kind("an HDF5 file, such as a Keras model", cure=TRITON)
    if head.startswith(b"CBM1"):
        return Kind("a CatBoost model")
    if head[4:8] == b"TFL3":
        return Kind("a TensorFlow Lite model")
    return None


def _json(_path: str, head: bytes) -> Optional[Kind]:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text[:1] not in (b"{", b"[") or text[1:2] == b"L":
        return None
    if b'"learner"' in text:
        return Kind("an XGBoost model saved as JSON", "xgboost")
    if b'"tree_info"' in text or b'"tree_sizes"' in text or (b'"num_class"' in text and b'"feature_names"' in text):
        return Kind(
            "a LightGBM model dumped as JSON, which LightGBM cannot load",
            cure="save it with booster.save_model('model.txt') and use --engine lightgbm",
        )
    return Kind("a JSON file")


def _archive(path: str, head: bytes) -> Optional[Kind]:
    if not head.startswith(b"PK\x03\x04"):
        return None
    import zipfile

    with zipfile.ZipFile(path) as archive:
        names = {os.path.basename(name) for name in archive.namelist()}
    if "constants.pkl" in names:
        return Kind("a PyTorch model in TorchScript", cure=TRITON)
    if "data.pkl" in names:
        return Kind("a file of torch.save")
    if "model.weights.h5" in names:
        return Kind("a Keras model", cure=TRITON)
    if "schema.json" in names:
        return Kind("a file of skops")
    return Kind("a zip archive")


def _pickle(_path: str, head: bytes) -> Optional[Kind]:
    plain = _unpacked(head)
    if not PICKLE.match(plain):
        return None
    named = PICKLED.search(plain)
    if named is None:
        return Kind("a pickle of something else than a model of scikit-learn, XGBoost or LightGBM")
    library = named.group(1).decode()
    what = f"a pickled {NAMES.get(library, library)} model"
    if library in ("sklearn", "xgboost", "lightgbm"):
        return Kind(what, "sklearn")  # which unpickles, and calls predict
    return Kind(what)


def _unpacked(head: bytes, most: int = HEAD) -> bytes:
    """Return the beginning of a file that joblib may have compressed."""
    import bz2
    import lzma
    import zlib

    ways: tuple[tuple[bytes, Callable[[], bytes]], ...] = (
        (b"\x1f\x8b", lambda: zlib.decompressobj(wbits=31).decompress(head, most)),
        (b"x", lambda: zlib.decompressobj().decompress(head, most)),
        (b"BZh", lambda: bz2.BZ2Decompressor().decompress(head, most)),
        (b"\xfd7zXZ", lambda: lzma.LZMADecompressor().decompress(head, most)),
        (b"]\x00", lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE).decompress(head, most)),
    )
    for beginning, unpack in ways:
        if head.startswith(beginning):
            try:
                return unpack()
            except (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError):
                return head
    return head
