#!/usr/bin/env bash
# Runs every fuzz target in turn, each for FUZZTIME (default 1m), on one core. Failing inputs
# are stored in testdata/fuzz and become tests. FUZZ=regexp runs some targets.
# KEEP=n also stores the n smallest of the interesting inputs there.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${FUZZTIME:-1m}
only=${FUZZ:-.}
keep=${KEEP:-0}
corpus=$PWD/.cache/fuzz
mkdir -p "$corpus"
failed=()
ran=0
while IFS=: read -r file _ line; do
  target=$(sed -E 's/^func (Fuzz[A-Za-z0-9_]*)\(.*/\1/' <<<"$line")
  folder=$(dirname "$file")
  [[ "$folder/$target" =~ $only ]] || continue
  echo "fuzz: $folder $target for $time"
  ran=$((ran + 1))
  cache=$corpus/${folder//\//_}
  # By default, Go minimizes an input that reaches new code for up to a minute. For targets that
  # write files, this took nearly all of the time.
  if ! nice -n 19 "${GO:-go}" test "$folder" -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 100x -parallel "${PARALLEL:-1}" -test.fuzzcachedir "$cache"; then
    failed+=("$folder $target")
  fi
  if ((keep > 0)) && [ -d "$cache/$target" ]; then
    mkdir -p "$folder/testdata/fuzz/$target"
    find "$cache/$target" -type f -size -4k -printf '%s %p\n' | sort -n | awk -v most="$keep" 'NR <= most { sub(/^[0-9]+ /, ""); print }' |
      xargs -r -I{} cp -n {} "$folder/testdata/fuzz/$target/"
  fi
done < <(grep -rn --include='*_test.go' --exclude-dir='.?*' -E '^func Fuzz[A-Za-z0-9_]*\(' . | sort)
if ((ran == 0)); then
  echo "fuzz: no target matches $only" >&2
  exit 2
fi
if ((${#failed[@]} > 0)); then
  printf 'fuzz: found something: %s\n' "${failed[@]}" >&2
  exit 1
fi
echo "fuzz: $ran targets, $time each, nothing found"
