"""Makes a wheel of the program and the package of python/:

    packaging/wheel.py --binary FILE --sbom FILE --beside FOLDER --platform linux-amd64-gnu \\
        --version 1.2.3 --out DIR

FOLDER is what packaging/prepare.sh has made: manual pages, completions, licences. A wheel is a zip file
whose layout is that of PEP 427, 639 and 770, so that it needs no build tool. The same input gives the same
bytes: all times are SOURCE_DATE_EPOCH.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import os
import re
import sys
import time
import zipfile
from pathlib import Path

NAME = "clearml_serving_go"
TREE = Path(__file__).resolve().parent.parent

# The tags of pip, by the name of a build. The binary for glibc asks for no version of a symbol; 2.17 is
# the oldest release that pip's manylinux2014 allows. The static one is for musl. Go 1.26 needs macOS 12.
PLATFORMS = {
    "linux-amd64-gnu": ["manylinux_2_17_x86_64", "manylinux2014_x86_64"],
    "linux-arm64-gnu": ["manylinux_2_17_aarch64", "manylinux2014_aarch64"],
    "linux-amd64-static": ["musllinux_1_2_x86_64"],
    "linux-arm64-static": ["musllinux_1_2_aarch64"],
    "darwin-amd64": ["macosx_12_0_x86_64"],
    "darwin-arm64": ["macosx_12_0_arm64"],
}

COMPLETIONS = {
    "bash": "bash-completion/completions/clearml-serving",
    "zsh": "zsh/site-functions/_clearml-serving",
    "fish": "fish/vendor_completions.d/clearml-serving.fish",
}

CLASSIFIERS = """\
Development Status :: 4 - Beta
Environment :: Console
Environment :: Web Environment
Intended Audience :: Developers
Operating System :: MacOS
Operating System :: POSIX :: Linux
Programming Language :: Python :: 3
Programming Language :: Python :: 3.9
Programming Language :: Python :: 3.10
Programming Language :: Python :: 3.11
Programming Language :: Python :: 3.12
Programming Language :: Python :: 3.13
Programming Language :: Python :: 3.14
Framework :: Pytest
Topic :: Scientific/Engineering :: Artificial Intelligence
Typing :: Typed
"""


def main() -> None:
    """Read the command line and write the wheel."""
    parser = argparse.ArgumentParser(description="Make a wheel of the program.")
    for flag in ("binary", "sbom", "beside", "out"):
        parser.add_argument("--" + flag, type=Path, required=True)
    parser.add_argument("--platform", choices=sorted(PLATFORMS), required=True)
    parser.add_argument(
        "--version", required=True, help="version of the program, as clearml-serving version prints it"
    )
    args = parser.parse_args()
    print(wheel(args.binary, args.sbom, args.beside, args.platform, args.version, args.out))


def pep440(version: str) -> str:
    """Return the version as pip takes it.

    >>> [pep440(v) for v in ("1.2.3", "v1.2.3-rc.1", "0.1.0-dev", "1.2.3-4-gabc1234", "1-2-gabc1234-dirty")]
    ['1.2.3', '1.2.3rc1', '0.1.0.dev0', '1.2.3.post4+gabc1234', '1.post2+gabc1234.dirty']
    """
    found = re.fullmatch(
        r"v?(\d+(?:\.\d+)*)(?:-(alpha|beta|rc|dev)(?:\.?(\d+))?)?(?:-(\d+)-(g[0-9a-f]+)(-dirty)?)?", version
    )
    if found is None:
        sys.exit(f"wheel: {version!r} is no version of the program, such as 1.2.3 or 1.2.3-rc.1")
    release, stage, number, commits, commit, dirty = found.groups()
    text = release
    if stage:
        text += {"alpha": "a", "beta": "b", "rc": "rc", "dev": ".dev"}[stage] + (number or "0")
    if commits:
        text += f".post{commits}+{commit}" + (".dirty" if dirty else "")
    return text


def wheel(binary: Path, sbom: Path, beside: Path, platform: str, version: str, out: Path) -> Path:
    """Write the wheel, and return its path."""
    version = pep440(version)
    tags = PLATFORMS[platform]
    info = f"{NAME}-{version}.dist-info"
    files: dict[str, tuple[bytes, int]] = {}
    for path in sorted((TREE / "python" / NAME).iterdir()):
        if path.suffix == ".py" or path.name == "py.typed":
            files[f"{NAME}/{path.name}"] = (path.read_bytes(), 0o644)
    files[f"{NAME}-{version}.data/scripts/clearml-serving"] = (binary.read_bytes(), 0o755)
    # Into share/ of the environment: man looks there for what is on the PATH, shells by XDG_DATA_DIRS.
    share = {f"man/man1/{path.name}": path for path in sorted((beside / "man").iterdir())}
    for shell, name in COMPLETIONS.items():
        share[name] = beside / "completions" / f"clearml-serving.{shell}"
    for name, path in share.items():
        files[f"{NAME}-{version}.data/data/share/{name}"] = (path.read_bytes(), 0o644)
    for name, path in (
        ("LICENSE", TREE / "LICENSE"),
        ("THIRD_PARTY.md", TREE / "THIRD_PARTY.md"),
        ("NOTICES", beside / "NOTICES"),
    ):
        files[f"{info}/licenses/{name}"] = (path.read_bytes(), 0o644)
    files[f"{info}/sboms/clearml-serving-go.cyclonedx.json"] = (sbom.read_bytes(), 0o644)
    files[f"{info}/METADATA"] = (metadata(version).encode(), 0o644)
    described = ["Wheel-Version: 1.0", "Generator: packaging/wheel.py", "Root-Is-Purelib: false"]
    described += [f"Tag: py3-none-{tag}" for tag in tags]
    files[f"{info}/WHEEL"] = (("\n".join(described) + "\n").encode(), 0o644)
    files[f"{info}/entry_points.txt"] = (
        f"[pytest11]\nclearml_serving = {NAME}.pytest_plugin\n".encode(),
        0o644,
    )

    record = []
    for name, (data, _) in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        record.append(f"{name},sha256={digest},{len(data)}\n")
    record.append(f"{info}/RECORD,,\n")
    files[f"{info}/RECORD"] = ("".join(record).encode(), 0o644)

    out.mkdir(parents=True, exist_ok=True)
    target = out / f"{NAME}-{version}-py3-none-{'.'.join(tags)}.whl"
    part = target.with_suffix(".part")
    # A zip file has no time before 1980.
    epoch = max(int(os.environ.get("SOURCE_DATE_EPOCH", "0")), 315532800)
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, (data, mode) in files.items():
            entry = zipfile.ZipInfo(name, time.gmtime(epoch)[:6])
            entry.external_attr = (0o100000 | mode) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3
            archive.writestr(entry, data, compresslevel=9)
    part.replace(target)
    return target


def metadata(version: str) -> str:
    """Return the description of the package."""
    lines = [
        "Metadata-Version: 2.4",
        "Name: clearml-serving-go",
        f"Version: {version}",
        "Summary: ClearML Serving as one program: models as HTTP endpoints, with a typed client",
        "License-Expression: Apache-2.0",
        "License-File: LICENSE",
        "License-File: THIRD_PARTY.md",
        "License-File: NOTICES",
        "Keywords: clearml,model serving,inference,mlops,triton,kserve",
        *(f"Classifier: {line}" for line in CLASSIFIERS.splitlines()),
        "Requires-Python: >=3.9",
        "Provides-Extra: client",
        'Requires-Dist: numpy; extra == "client"',
        'Requires-Dist: pandas; extra == "client"',
        "Description-Content-Type: text/markdown",
    ]
    return "\n".join(lines) + "\n\n" + (TREE / "python" / "README.md").read_text()


if __name__ == "__main__":
    main()
