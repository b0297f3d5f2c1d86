"""Writes the licences of everything that is linked into the program:

packaging/notices.py FILE
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

FORMAT = (
    "{{with .Module}}{{if not .Main}}"
    '{"path":"{{.Path}}","version":"{{.Version}}","dir":"{{.Dir}}"}'
    "{{end}}{{end}}"
)
LICENCE = re.compile(r"(?i)^(licen[cs]e|copying|notice|patents|unlicense)([-_.].*)?$")


def main() -> None:
    """Collect the modules of every system, and the texts in their folders."""
    modules: dict[str, dict[str, str]] = {}
    for system in ("linux", "darwin"):
        env = {**os.environ, "GOOS": system, "CGO_ENABLED": "0"}
        words = ["go", "list", "-deps", "-f", FORMAT, "./cmd/clearml-serving"]
        listed = subprocess.run(words, env=env, check=True, capture_output=True, text=True).stdout
        for line in listed.split():
            module = json.loads(line)
            modules[module["path"]] = module
    goroot = subprocess.run(
        ["go", "env", "GOROOT"], check=True, capture_output=True, text=True
    ).stdout.strip()
    modules["the standard library of Go"] = {
        "path": "the standard library of Go",
        "version": "",
        "dir": goroot,
    }
    parts = ["The program is linked with these modules. The licence of each follows its name.\n"]
    for path in sorted(modules):
        module = modules[path]
        texts = [f for f in sorted(Path(module["dir"]).iterdir()) if f.is_file() and LICENCE.match(f.name)]
        if not texts:
            sys.exit(f"notices: {path} {module['version']} has no file with its licence in {module['dir']}")
        parts.append(f"{'=' * 78}\n{path} {module['version']}".rstrip() + "\n")
        parts += [f.read_text(encoding="utf-8", errors="replace").strip() + "\n" for f in texts]
    Path(sys.argv[1]).write_text("\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
