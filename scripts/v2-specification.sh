#!/usr/bin/env bash
# Fetches KServe's OpenAPI document of the V2 protocol into .cache/v2, and prints its path. It is in no package
# but KServe's Go module.
set -euo pipefail
cd "$(dirname "$0")/.."
module=github.com/kserve/kserve@v0.15.2
sum=8106eb3dda1e3c824fa1e8aa4011c458360b6a6b5ac5a1eecae857ebd05844b8
document=$PWD/.cache/v2/rest_predict_v2.yaml

same() { echo "$sum  $document" | sha256sum --status -c 2>/dev/null; }
if ! same; then
  mkdir -p .cache/v2
  # Outside of our module, which does not depend on it.
  folder=$(cd "$(mktemp -d)" && "$OLDPWD/scripts/again.sh" go mod download -json "$module" | sed -n 's/^\t"Dir": "\(.*\)",\{0,1\}$/\1/p')
  install -m 644 "$folder/docs/predict-api/v2/rest_predict_v2.yaml" "$document"
  same || { echo "v2-specification: $document has another content than expected" >&2; exit 1; }
fi
echo "$document"
