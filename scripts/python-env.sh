#!/usr/bin/env bash
# Creates a Python environment from a pinned, hashed requirements file:
#   scripts/python-env.sh FOLDER REQUIREMENTS
# Uses uv if available, else venv and pip. An environment from the same file and the same Python
# is kept, so a second run takes no time. An interrupted one has no stamp and is created again.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$1 requirements=$2
python=$(scripts/python-find.sh)
stamp=$({ cat "$requirements" scripts/python-env.sh; "$python" -c 'import sys; print(sys.version, sys.platform, sys.base_prefix)'; } |
  "$python" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())')
made() { [ "$(cat "$folder/.stamp" 2>/dev/null)" = "$stamp" ] && "$folder/bin/python" -c '' 2>/dev/null; }

made && exit 0
if command -v flock >/dev/null 2>&1; then # two makes at once: the second waits, then finds it made
  mkdir -p .cache
  exec 9>".cache/$(basename "$folder").lock"
  flock 9
  made && exit 0
fi

count=$(grep -c '==' "$requirements")
echo "python: making $folder with $("$python" -V) and the $count packages of $requirements" >&2
rm -rf "$folder"
if uv=$(scripts/python-uv.sh); then
  "$uv" venv --quiet --no-project --python "$python" "$folder"
  VIRTUAL_ENV=$PWD/$folder "$uv" pip install --require-hashes --compile-bytecode -r "$requirements" >&2
else
  echo "python: uv is not available, using venv and pip (slower)" >&2
  "$python" -m venv "$folder" || {
    echo "python: $python can't make environments; Debian, Ubuntu: apt-get install python3-venv" >&2
    exit 1
  }
  "$folder/bin/python" -m pip install --disable-pip-version-check --require-hashes -r "$requirements" >&2
fi
echo "$stamp" >"$folder/.stamp"
echo "python: $folder is ready" >&2
