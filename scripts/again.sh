#!/usr/bin/env bash
# Runs a command that downloads, with up to three retries after growing pauses.
#   scripts/again.sh COMMAND [ARGUMENT …]
# For commands without retries; pip and uv have them.
set -euo pipefail
for pause in 5 15 45; do
  if "$@"; then exit 0; fi
  echo "again: failed, retry in $pause s: $*" >&2
  sleep "$pause"
done
exec "$@"
