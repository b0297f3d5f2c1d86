#!/usr/bin/env bash
# Installs the Debian packages of a target, if their commands are missing:
#   scripts/system-packages.sh COMMAND[,COMMAND…]=PACKAGE…
# One of the commands is enough. Without apt-get or root it fails and names the packages.
set -euo pipefail
cd "$(dirname "$0")/.."
present() {
  local command
  for command in ${1//,/ }; do
    # In Debian, initdb and others are in the folder of their version, not on the PATH.
    if command -v "$command" >/dev/null || compgen -G "/usr/lib/postgresql/*/bin/$command" >/dev/null; then return 0; fi
  done
  return 1
}
missing=()
for need in "$@"; do
  present "${need%%=*}" || missing+=("${need#*=}")
done
[ ${#missing[@]} -eq 0 ] && exit 0
if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
  echo "system-packages: install ${missing[*]} first (Debian, Ubuntu: sudo apt-get install ${missing[*]})" >&2
  exit 1
fi
echo "system-packages: installing ${missing[*]}"
scripts/again.sh apt-get update -qq
DEBIAN_FRONTEND=noninteractive scripts/again.sh apt-get install -y -qq --no-install-recommends "${missing[@]}"
