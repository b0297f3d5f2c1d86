#!/usr/bin/env bash
# make demo: from an empty folder to a checked prediction, in six steps. All its files are in
# .demo/ (DEMO_DIR), .venv/ and bin/. A second run repeats only missing steps. It echoes
# the commands that a user would type; scripts/demo-stop.sh stops the service.
set -euo pipefail
cd "$(dirname "$0")/.."

demo=${DEMO_DIR:-.demo}
binary=bin/clearml-serving
python=.venv/bin/python
endpoint=test_model_sklearn
project="serving examples"
model="train sklearn model - sklearn-model"
preprocess=examples/sklearn/preprocess.py
ready_stall=60 # seconds without a sign of life before we give up on a start

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
  bold=$'\e[1m' dim=$'\e[2m' green=$'\e[32m' red=$'\e[31m' plain=$'\e[0m'
else
  bold="" dim="" green="" red="" plain=""
fi
step() { printf '\n%s[%s/6] %s%s\n' "$bold" "$1" "$2" "$plain"; }
say() { printf '      %s\n' "$*"; }
fail() {
  printf '\n%sdemo: %s%s\n' "$red" "$1" "$plain" >&2
  shift
  [ $# -eq 0 ] || printf '  %s\n' "$@" >&2
  exit 1
}
# show echoes a command as in a shell.
show() {
  local words="" word
  for word in "$@"; do
    case $word in *[!A-Za-z0-9_./:=-]* | "") word="'${word//\'/\'\\\'\'}'" ;; esac
    words+=" $word"
  done
  printf '%s      $%s%s\n' "$dim" "$words" "$plain"
}
run() { show "$@" && "$@"; }
# serving runs a clearml-serving command and drops its constant first line.
serving() { show "$binary" "$@" && "$binary" "$@" | sed -e '/^clearml-serving - CLI/d' -e 's/^/      /'; }
# field FILTER reads JSON on stdin and prints a Python expression of it, called d.
field() { "$python" -c 'import json, sys; d = json.load(sys.stdin); v = eval(sys.argv[1]); print("" if v is None else v)' "$1"; }
address() { field "d.get('$1')" <"$demo/endpoints.json"; }
alive() { [ -n "${1:-}" ] && kill -0 "$1" 2>/dev/null; }
digest() { "$python" -c 'import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())' "$1"; }

command -v curl >/dev/null || fail "curl is needed" "Debian, Ubuntu: apt-get install curl"
mkdir -p "$demo"
demo=$(cd "$demo" && pwd)
log=$demo/up.log
if command -v flock >/dev/null; then # two demos on one folder would use each other's service
  exec 8>"$demo/demo.lock"
  flock -n 8 || fail "another make demo is using $demo" "wait for it, or: DEMO_DIR=/some/other/folder make demo"
fi

step 1 "Build $binary"
run make --no-print-directory build
say "$("$binary" version | grep -v '^clearml-serving - ' | head -1)"

step 2 "Create a Python environment"
run scripts/python-env.sh .venv requirements/main.txt
say "$("$python" -V), scikit-learn $("$python" -c 'from importlib.metadata import version as v; print(v("scikit-learn") + ", clearml " + v("clearml"))')"

step 3 "Start clearml-serving up"
# The service's file has the id of the process that serves this folder.
if [ -f "$demo/endpoints.json" ]; then up_pid=$(address pid); else up_pid=$(cat "$demo/up.pid" 2>/dev/null || true); fi
! alive "$up_pid" || echo "$up_pid" >"$demo/up.pid"
if alive "$up_pid" && [ "$(cat "$demo/up.binary" 2>/dev/null)" != "$(digest "$binary")" ]; then
  say "it runs (process $up_pid), but from an older build: restarting it"
  scripts/demo-stop.sh
  up_pid=""
fi
if alive "$up_pid" && [ -f "$demo/endpoints.json" ]; then
  say "it runs already: process $up_pid"
else
  rm -f "$demo/endpoints.json" # the files of a killed process would look like the new one's
  command=("$binary" up --data-dir "$demo" --addr-fallback)
  printf '%s      $ CLEARML_SERVING_PYTHON=%s %s &%s\n' "$dim" "$python" "${command[*]}" "$plain"
  detach=$(command -v setsid || true) # so that Ctrl-C in this terminal does not stop it
  CLEARML_SERVING_PYTHON=$PWD/$python nohup $detach "${command[@]}" >"$log" 2>&1 </dev/null 8>&- &
  up_pid=$!
  disown "$up_pid" 2>/dev/null || true
  echo "$up_pid" >"$demo/up.pid"
  digest "$binary" >"$demo/up.binary"
fi
stalled=0 last=""
until [ -f "$demo/endpoints.json" ] && api=$(address api) && [ -n "$api" ] && curl -fsS -o /dev/null --max-time 2 "$api/livez" 2>/dev/null; do
  alive "$up_pid" || fail "clearml-serving ended while it started; its last lines:" "$(tail -n 15 "$log")"
  line=$(tail -n 1 "$log" 2>/dev/null || true)
  if [ "$line" = "$last" ]; then stalled=$((stalled + 1)); else stalled=0 last=$line; fi
  [ "$stalled" -lt $((ready_stall * 5)) ] || fail "clearml-serving printed nothing for $ready_stall s; its last lines:" "$(tail -n 15 "$log")"
  [ $((stalled % 25)) -ne 24 ] || say "still waiting; its last line: $last"
  sleep 0.2
done
serve=$(address serve)
say "control plane ${bold}$api${plain}, endpoints ${bold}$serve${plain}, log ${log#"$PWD"/}"
variables="eval \"\$($binary env --data-dir '$demo')\"" # what a user would type
printf '%s      $ %s%s\n' "$dim" "$variables" "$plain"
eval "$("$binary" env --data-dir "$demo")"

# The SDK runs git in one thread while another forks its reporter. If the fork inherits git's
# pipe, Task.close waits five minutes. Sequential execution is safe.
printf 'sdk { development { vcs_repo_detect_async: false } }\n' >"$demo/sdk.conf"
export CLEARML_CONFIG_FILE=$demo/sdk.conf

step 4 "Train with the ClearML SDK"
if [ -n "$("$python" scripts/demo_model.py find)" ]; then
  say "the model '$model' is registered already"
else
  # in the demo's folder, because the script writes its model file there
  printf '%s      $ python3 examples/sklearn/train_model.py%s\n' "$dim" "$plain"
  (root=$PWD && cd "$demo" && "$root/$python" "$root/examples/sklearn/train_model.py") 2>&1 | sed 's/^/      | /'
  [ -n "$("$python" scripts/demo_model.py find)" ] || fail "the training ended, but '$model' is not registered in project '$project'"
fi

step 5 "Create the serving service and the endpoint"
service=$("$binary" --json list | field "next(iter(d.get('services', []) if isinstance(d, dict) else d), {}).get('id')")
if [ -n "$service" ]; then
  say "the serving service exists already: id=$service"
else
  serving create --name "serving example"
  service=$("$binary" --json list | field "next(iter(d.get('services', []) if isinstance(d, dict) else d), {}).get('id')")
fi
present=$("$binary" --id "$service" --json model list | field "'$endpoint' in d.get('endpoints', {})")
if [ "$present" = True ] && [ "$(cat "$demo/preprocess.sha256" 2>/dev/null)" = "$(digest "$preprocess")" ]; then
  say "the endpoint '$endpoint' exists already, with today's $preprocess"
else
  serving --id "$service" model add --engine sklearn --endpoint "$endpoint" \
    --preprocess "$preprocess" --name "$model" --project "$project" --wait
  digest "$preprocess" >"$demo/preprocess.sha256"
fi

step 6 "Ask it"
for _ in $(seq 600); do
  ready=$(curl -sS -o "$demo/readyz" -w '%{http_code}' --max-time 10 "$serve/readyz" || true)
  [ "$ready" != 200 ] || break
  alive "$up_pid" || fail "clearml-serving ended; its last lines:" "$(tail -n 15 "$log")"
  sleep 0.2
done
[ "$ready" = 200 ] || fail "the service did not become ready within 2 minutes:" "$(cat "$demo/readyz" 2>/dev/null)"
url=$serve/serve/$endpoint
row=$("$python" scripts/demo_model.py row)
printf '%s      $ curl -X POST "%s" -H "Content-Type: application/json" -d '\''%s'\''%s\n' "$dim" "$url" "$row" "$plain"
answer=$(curl -sS --max-time 120 -w '\n%{http_code}' -X POST "$url" -H "accept: application/json" -H "Content-Type: application/json" -d "$row")
status=${answer##*$'\n'} answer=${answer%$'\n'*}
[ "$status" = 200 ] || fail "the endpoint answered $status: $answer" "log: $log"
say "${bold}$answer${plain}"
checked=$("$python" scripts/demo_model.py check "$url" "$row" "$answer") || fail "the service's answers are not scikit-learn's:" "$checked"
say "${green}$checked${plain}"

cat <<DONE

${bold}It works, and goes on running.${plain}
  page and API     $api
  endpoint         $url
  what is served   $binary model list
  health           curl $serve/readyz

${bold}Try next${plain}  (in this shell first: $variables)
  change examples/sklearn/preprocess.py, then the model add command of step 5 again: live in 2 s
  deploy every new version by itself:
    $binary model auto-update --engine sklearn --endpoint ${endpoint}_auto --preprocess $preprocess --name "$model" --project "$project" --max-versions 2
  the tutorial: examples/sklearn/readme.md

${bold}Stop${plain}      make demo-stop     (rm -r ${demo#"$PWD"/} forgets everything)
DONE
