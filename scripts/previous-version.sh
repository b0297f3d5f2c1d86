#!/usr/bin/env bash
# Builds the program of an earlier commit, for tests that have two versions beside each other:
#   scripts/previous-version.sh COMMIT OUT
# OUT gets the program, and OUT.txt a line that says what it is. In a clone without that commit (a shallow one) it
# is the program of this checkout under another version, and the line says so.
set -euo pipefail
cd "$(dirname "$0")/.."
commit=$1 out=$(realpath -m "$2")
build() { # FOLDER VERSION COMMIT
  (cd "$1" && CGO_ENABLED=0 "${GO:-go}" build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$2 -X main.commit=$3" -o "$out" ./cmd/clearml-serving)
}
mkdir -p "$(dirname "$out")"
if id=$(git rev-parse --verify --quiet "$commit^{commit}"); then
  text="$(git log -1 --format='%h of %cs' "$id"), $(git rev-list --count "$id..HEAD") commits before"
  if [ -x "$out" ] && [ "$(cut -d ' ' -f 1 "$out.txt" 2>/dev/null)" = "${text%% *}" ]; then
    echo "$text" >"$out.txt"
    exit 0
  fi
  echo "previous-version: building $text"
  source=$(mktemp -d)
  trap 'rm -rf "$source"' EXIT
  git archive "$id" | tar -x -C "$source"
  build "$source" "0.0.1-$(git rev-parse --short "$id")" "$(git rev-parse --short "$id")"
else
  text="this checkout under the version 0.0.1, because the clone has no commit $commit"
  echo "previous-version: $text" >&2
  build . 0.0.1 same
fi
echo "$text" >"$out.txt"
