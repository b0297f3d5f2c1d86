#!/usr/bin/env bash
# Keeps the data folder of a release, for the tests of upgrades:
#   scripts/data-folder.sh NAME [COMMIT]
# The program of a commit (by default the tag of that name) serves a small model from an empty folder and answers. What it leaves becomes
# e2e/testdata/folders/NAME.tar.gz: database, credentials, files, the instance's last good state.
set -euo pipefail
cd "$(dirname "$0")/.."
tree=$PWD
name=${1:?"say the name of the release: scripts/data-folder.sh NAME [COMMIT]"} commit=${2:-$name}
python=$(scripts/python-find.sh)
work=$(mktemp -d)
pid=
trap 'if [ -n "$pid" ]; then kill "$pid" 2>/dev/null || true; wait "$pid" || true; fi; rm -rf "$work"' EXIT
fail() { echo "data-folder: $*" >&2; tail -n 20 "$work/log" >&2; exit 1; }

mkdir "$work/tree" "$work/home" "$work/files"
ln -s "$("$python" -c 'import sys; print(sys.executable)')" "$work/python3" # its path is stored
git archive "$commit" | tar -C "$work/tree" -xf -
echo "data-folder: building the program of $(git log -1 --format='%h, %cs' "$commit")" >&2
program=$work/clearml-serving
(cd "$work/tree" && CGO_ENABLED=0 ${GO:-go} build -trimpath -o "$program" ./cmd/clearml-serving)

# A model that needs no library: a release's packages are not those of a later one.
echo '{"slope": 2, "offset": 1}' >"$work/files/line.json"
cp e2e/testdata/code/line.py "$work/files/"

clean=(env -i PATH="$PATH" HOME="$work/home" LANG=C.UTF-8 NO_COLOR=1 CLEARML_SERVING_HOME="$work/data" CLEARML_SERVING_PYTHON="$work/python3" CLEARML_SERVING_GRPC_ADDR=127.0.0.1:0)
cd "$work/files"
"${clean[@]}" "$program" up --serve-addr 127.0.0.1:0 --api-addr 127.0.0.1:0 --files-addr 127.0.0.1:0 --admin-addr 127.0.0.1:0 >>"$work/log" 2>&1 &
pid=$!
address() { "$python" -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$work/data/endpoints.json" "$1"; }
for _ in $(seq 1200); do
  kill -0 "$pid" 2>/dev/null || { pid=; fail "the program ended"; }
  if [ -s "$work/data/endpoints.json" ] && curl -fsS -o /dev/null "$(address api)/livez" 2>/dev/null; then break; fi
  sleep 0.1
done
mapfile -t variables < <("${clean[@]}" "$program" env --format json | "$python" -c 'import json, sys; [print(f"{k}={v}") for k, v in json.load(sys.stdin).items()]')
tell() { "${clean[@]}" "${variables[@]}" "$program" "$@" >>"$work/log" 2>&1 || fail "failed: $*"; }
tell create --name lines
id=$(sed -n 's/^New Serving Service created: id=//p' "$work/log")
tell --id "$id" model upload --name line --project lines --path line.json --framework custom
tell --id "$id" model add --engine custom --endpoint line --version 1 --name line --project lines --preprocess line.py --wait
tell --id "$id" model canary --endpoint line_canary --weights 1.0 --input-endpoints line/1 --wait
tell --id "$id" metrics add --endpoint line/1 --variable-scalar x=0,1,10 y=0,10,100
for endpoint in line/1 line_canary; do
  answer=$(curl -sS -H 'Content-Type: application/json' -d '{"x": 4}' "$(address serve)/serve/$endpoint")
  [ "$answer" = '{"y":9}' ] || fail "$endpoint answers $answer"
done
kill "$pid"
wait "$pid" || fail "the program did not end well"
pid=

cd "$tree"
mkdir -p e2e/testdata/folders
# Without the program's own Python files.
tar -C "$work" --sparse --sort=name --owner=root:0 --group=root:0 --exclude=data/runtime -cf - data | gzip -9n >"e2e/testdata/folders/$name.tar.gz"
du -h "e2e/testdata/folders/$name.tar.gz"
