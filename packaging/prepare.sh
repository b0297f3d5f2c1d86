#!/usr/bin/env bash
# Makes what the archives and packages have beside the program, into .cache/package/:
#   packaging/prepare.sh VERSION
# The same commit gives the same bytes: all times are those of the commit (SOURCE_DATE_EPOCH).
set -euo pipefail
cd "$(dirname "$0")/.."
version=$1 to=.cache/package
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
rm -rf "$to"
mkdir -p "$to/man" "$to/completions"

CLEARML_SERVING_MANUAL=$PWD/$to/man go test -count=1 -run '^TestManualPages$' ./cmd/clearml-serving >&2
go build -trimpath -o "$to/clearml-serving" ./cmd/clearml-serving # of this machine, whose completions are those of all
for shell in bash zsh fish; do "$to/clearml-serving" completion $shell >"$to/completions/clearml-serving.$shell"; done
rm "$to/clearml-serving"
python3 packaging/notices.py "$to/NOTICES"

debian=$(sed 's/-\(alpha\|beta\|rc\|dev\)/~\1/' <<<"$version")
cat >"$to/changelog.Debian" <<EOF
clearml-serving ($debian-1) unstable; urgency=medium

  * Made from the sources of this version; see changelog.gz for its changes.

 -- $MAINTAINER  $(date -u -R -d "@$SOURCE_DATE_EPOCH")
EOF
cp CHANGELOG.md "$to/changelog"
gzip -9n "$to"/man/* "$to/changelog" "$to/changelog.Debian"
gzip -9nk "$to/NOTICES"
find "$to" -exec touch -d "@$SOURCE_DATE_EPOCH" {} +
