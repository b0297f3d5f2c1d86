#!/usr/bin/env bash
# Builds everything that is released, into dist/: make package calls it.
#   packaging/build.sh VERSION TOOLS-FOLDER
# HOST=1: only what this machine can run, and the chart.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=$(realpath "$2")
export SNAPSHOT_VERSION=${1#v} PATH=$2:$PATH
# Every time in what is built. goreleaser's own .CommitDate is empty as long as there is no tag.
export SOURCE_DATE_EPOCH COMMIT_DATE
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
COMMIT_DATE=$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)

config=packaging/goreleaser.yaml host=
if [ -n "${HOST:-}" ]; then # goreleaser takes one target for "build" only, which makes no packages
  host=$(go env GOARCH) config=.cache/goreleaser-host.yaml
  mkdir -p .cache
  sed "s/goos: .*/goos: [linux]/; s/goarch: .*/goarch: [$host]/" packaging/goreleaser.yaml >"$config"
fi
# Nothing is published from here: --snapshot takes the version as it is given.
goreleaser release --config "$config" --snapshot --clean

while read -r platform build sbom; do
  [[ -z $host || $platform == linux-$host-* ]] || continue
  python3 packaging/wheel.py --platform "$platform" --version "$SNAPSHOT_VERSION" --out dist \
    --binary dist/"$build"/clearml-serving --beside .cache/package \
    --sbom "dist/clearml-serving_${SNAPSHOT_VERSION}_$sbom.cdx.json"
done <<'WHEELS'
linux-amd64-gnu regular_linux_amd64_v1 linux_amd64
linux-arm64-gnu regular_linux_arm64_v8.0 linux_arm64
linux-amd64-static static_linux_amd64_v1 linux_amd64_static
linux-arm64-static static_linux_arm64_v8.0 linux_arm64_static
darwin-amd64 regular_darwin_amd64_v1 darwin_amd64
darwin-arm64 regular_darwin_arm64_v8.0 darwin_arm64
WHEELS

# The chart, whose images have this version as their tag. helm gives each file the time of the call: they are packed again.
chart=$(mktemp -d)
trap 'rm -rf "$chart"' EXIT
"$tools/../helm" package --app-version "$SNAPSHOT_VERSION" --destination "$chart" helm/clearml-serving-go >/dev/null
packed=$(basename "$chart"/*.tgz)
tar -C "$chart" -mxzf "$chart/$packed"
tar -C "$chart" --sort=name --format=ustar --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX --mtime="@$SOURCE_DATE_EPOCH" -c clearml-serving-go |
  gzip -9n >"dist/$packed"

(cd dist && sha256sum ./*.whl ./*.tgz | sed 's#\./##' >>"clearml-serving_${SNAPSHOT_VERSION}_checksums.txt")
ls -l dist | awk 'NR > 1 && !/^d/ { printf "%9.1f MB  %s\n", $5 / 1e6, $NF }'
