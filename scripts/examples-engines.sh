#!/usr/bin/env bash
# make examples-engines: the tutorials of examples/ whose frameworks are large, as scripts/examples.sh runs the others.
# PyTorch is the system's CPU build (Debian: python3-torch); TORCH_PYTHON names another interpreter that has it.
#   scripts/examples-engines.sh [keras] [pytorch]
set -euo pipefail
cd "$(dirname "$0")/.."
names=${*:-keras pytorch}
make --no-print-directory build

# environment NAME: makes .venv-examples-NAME.
environment() {
  local folder=.venv-examples-$1 requirements=requirements/examples-$1.txt
  if [ "$1" != pytorch ]; then
    scripts/python-env.sh "$folder" "$requirements"
    return
  fi
  local python=${TORCH_PYTHON:-/usr/bin/python3} stamp
  # The commands are never there: the packages have none.
  "$python" -c 'import ensurepip, torch' 2>/dev/null || scripts/system-packages.sh no-torch=python3-torch no-venv=python3-venv
  stamp=$({ cat "$requirements" "$0"; "$python" -c 'import sys, torch; print(sys.version, torch.__version__)'; } | sha256sum | cut -d' ' -f1)
  [ "$(cat "$folder/.stamp" 2>/dev/null)" = "$stamp" ] && return
  echo "examples-engines: making $folder" >&2
  rm -rf "$folder"
  "$python" -m venv --system-site-packages "$folder"
  "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$requirements" >&2
  echo "$stamp" >"$folder/.stamp"
}

for name in $names; do
  environment "$name"
  ".venv-examples-$name/bin/python" -u e2e/examples/run.py --binary bin/clearml-serving "$name"
done
