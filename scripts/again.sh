#!/usr/bin/env bash
# Runs a command that downloads; when it fails, up to three times more, each after a longer pause.
#   scripts/again.sh COMMAND [ARGUMENT …]
# For what has no such patience by itself: pip and uv have.
set -euo pipefail
for pause in 5 15 45; do
  if "$@"; then exit 0; fi
  echo "again: it failed, once more in $pause s: $*" >&2
  sleep "$pause"
done
exec "$@"
