#!/usr/bin/env bash
# Prints the path of a Python that the pinned packages support (3.11 or newer): $PYTHON if
# set, else python3, else the newest python3.N of the machine.
set -euo pipefail
newest_tried=""
fits() {
  command -v "$1" >/dev/null 2>&1 || return 1
  newest_tried="$1 is $("$1" -c 'import platform; print(platform.python_version())' 2>/dev/null)" || return 1
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}
if [ -n "${PYTHON:-}" ]; then
  if fits "$PYTHON"; then command -v "$PYTHON"; exit 0; fi
  echo "python: PYTHON=$PYTHON is not a Python 3.11 or newer" >&2
  exit 1
fi
for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
  if fits "$candidate"; then command -v "$candidate"; exit 0; fi
done
{
  echo "python: Python 3.11 or newer is needed${newest_tried:+ ($newest_tried)}"
  echo "  Debian, Ubuntu: apt-get install python3 python3-venv"
  echo "  macOS:          brew install python"
  echo "  elsewhere:      PYTHON=/path/to/python3 make …"
} >&2
exit 1
