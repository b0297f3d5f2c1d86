"""Prepares the example: the three models of PP-OCR, the characters of the last one, and an image to read.

    python3 examples/onnx-ocr/prepare.py [FOLDER]

The models are in the package rapidocr-onnxruntime (Apache-2.0), of which nothing else is used. They are
copied into FOLDER, by default ocr_models, together with the image.
"""

import argparse
import importlib.util
import shutil
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

import onnxruntime

MODELS = {
    "detect.onnx": "ch_PP-OCRv4_det_infer.onnx",
    "turn.onnx": "ch_ppocr_mobile_v2.0_cls_infer.onnx",
    "read.onnx": "ch_PP-OCRv4_rec_infer.onnx",
}
LINES = [("Invoice", False), ("No. 2026-1130", False), ("upside down", True), ("Total 149.90", False)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, default=Path("ocr_models"))
    parser.add_argument("--package", type=Path, help="the unpacked package, if it is not installed")
    arguments = parser.parse_args()
    package = arguments.package or package_folder()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name, file in MODELS.items():
        shutil.copy(package / "models" / file, arguments.folder / name)
    session = onnxruntime.InferenceSession(str(arguments.folder / "read.onnx"))
    characters = session.get_modelmeta().custom_metadata_map["character"].splitlines()
    Path(__file__).with_name("read").joinpath("characters.txt").write_text(
        "\n".join(characters), encoding="utf-8"
    )
    draw().save(arguments.folder / "invoice.png")
    print(f"{len(MODELS)} models with {len(characters)} characters; an image of {len(LINES)} lines")


def package_folder() -> Path:
    found = importlib.util.find_spec("rapidocr_onnxruntime")  # it is not imported: it needs more packages
    if found is None or found.origin is None:
        raise SystemExit("the package is missing: pip3 install --no-deps rapidocr-onnxruntime==1.4.4")
    return Path(found.origin).parent


def draw() -> Image.Image:
    """Draw an image with a line of text each, some of them upside down."""
    image = Image.new("RGB", (640, 96 * len(LINES)), "white")
    font = ImageFont.load_default(size=40)
    for i, (text, upside_down) in enumerate(LINES):
        line = Image.new("RGB", (560, 64), "white")
        ImageDraw.Draw(line).text((8, 4), text, fill="black", font=font)
        image.paste(line.rotate(180) if upside_down else line, (40, 16 + 96 * i))
    return image


if __name__ == "__main__":
    main()
