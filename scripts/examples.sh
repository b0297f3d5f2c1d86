#!/usr/bin/env bash
# make examples: every tutorial of examples/ run as a reader would, and every answer compared with
# the framework's own. From nothing but Go, Python and curl; leaves nothing running.
#   scripts/examples.sh [--keep] [NAME ...]
set -euo pipefail
cd "$(dirname "$0")/.."
command -v curl >/dev/null || { echo "examples: curl is needed; Debian, Ubuntu: apt-get install curl" >&2; exit 1; }
make --no-print-directory build
scripts/python-env.sh .venv-examples requirements/examples.txt
exec .venv-examples/bin/python -u e2e/examples/run.py --binary bin/clearml-serving "$@"
