#!/usr/bin/env bash
# Pins requirements/*.in into requirements/*.txt: exact versions with hashes, for every Python from 3.11 on.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=$(scripts/python-uv.sh) || { echo "python-lock needs uv: pip install uv" >&2; exit 1; }
for source in requirements/*.in; do
  target=${source%.in}.txt
  echo "python-lock: $target"
  "$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes "$@" \
    --no-emit-index-url --no-emit-find-links --no-header --no-annotate \
    --output-file "$target" "$source"
  {
    echo "# Made from $(basename "$source") by \"make python-lock\"; not edited by hand."
    grep -v '^# Made from' "$target"
  } >"$target.new"
  mv "$target.new" "$target"
done
