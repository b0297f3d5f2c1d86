#!/usr/bin/env bash
# Generates the Go code of the .proto files of inference/grpcfront/pb. buf comes from npm at the
# version given, the plugin from the module's own version of protobuf.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$1

buf=.cache/buf-$version
if ! test -x "$buf/node_modules/.bin/buf"; then
  echo "protobuf: buf $version"
  mkdir -p "$buf"
  npm install --silent --no-audit --no-fund --no-save --prefix "$buf" "@bufbuild/buf@$version"
fi
"$buf/node_modules/.bin/buf" generate inference/grpcfront/pb --template '{
  "version": "v2",
  "plugins": [{"local": ["go", "run", "google.golang.org/protobuf/cmd/protoc-gen-go"], "out": "inference/grpcfront/pb", "opt": "paths=source_relative"}]
}'
