#!/usr/bin/env bash
# make examples: runs every tutorial of examples/ as a reader would, and compares every answer with
# the framework's own. Needs only Go, Python and curl; leaves no process running.
#   scripts/examples.sh [--keep] [NAME ...]
set -euo pipefail
cd "$(dirname "$0")/.."
command -v curl >/dev/null || { echo "examples: curl is needed; Debian, Ubuntu: apt-get install curl" >&2; exit 1; }
make --no-print-directory build
scripts/python-env.sh .venv-examples requirements/examples.txt
exec .venv-examples/bin/python -u e2e/examples/run.py --binary bin/clearml-serving "$@"
