#!/usr/bin/env bash
# Prints the path of uv: the machine's own, else one that pip installs into bin/tools/.
# Fails, with nothing on stdout, if neither is available; the caller then uses venv and pip.
set -euo pipefail
cd "$(dirname "$0")/.."
if command -v uv >/dev/null 2>&1 && uv --version >/dev/null 2>&1; then
  command -v uv
  exit 0
fi
home=$PWD/bin/tools/uv
if "$home/bin/uv" --version >/dev/null 2>&1; then
  echo "$home/bin/uv"
  exit 0
fi
python=$(scripts/python-find.sh)
rm -rf "$home"
mkdir -p "$(dirname "$home")"
echo "python: installing uv into bin/tools/" >&2
"$python" -m venv "$home" >&2
"$home/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes \
  -r requirements/tools.txt >&2
"$home/bin/uv" --version >/dev/null
echo "$home/bin/uv"
