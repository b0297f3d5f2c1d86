#!/usr/bin/env bash
# Creates a Python environment with TorchServe on top of the system's CPU build of torch, which no package index has:
#   scripts/torchserve-env.sh FOLDER
# Debian: python3-torch and what handlers of images import. An environment from the same file is kept.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$1 requirements=requirements/torchserve.txt
python=${TORCH_PYTHON:-/usr/bin/python3}
missing() { ! "$python" -c 'import ensurepip, torch, torchvision, matplotlib, yaml' 2>/dev/null; }
if missing; then
  # The command is never there: the packages have none.
  scripts/system-packages.sh no-torch="python3-torch" no-torchvision="python3-torchvision" no-matplotlib="python3-matplotlib" \
    no-yaml="python3-yaml" no-venv="python3-venv"
fi
scripts/system-packages.sh java=default-jre-headless
if missing; then
  echo "torchserve-env: $python has no torch, torchvision, matplotlib and yaml: name an interpreter that has them in TORCH_PYTHON" >&2
  exit 1
fi
stamp=$({ cat "$requirements" scripts/torchserve-env.sh; "$python" -c 'import sys, torch; print(sys.version, torch.__version__)'; } | sha256sum | cut -d' ' -f1)
[ "$(cat "$folder/.stamp" 2>/dev/null)" = "$stamp" ] && exit 0
echo "torchserve-env: making $folder" >&2
rm -rf "$folder"
"$python" -m venv --system-site-packages "$folder"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r "$requirements" >&2
echo "$stamp" >"$folder/.stamp"
