#!/usr/bin/env bash
# make demo-stop: stops the demo's clearml-serving and waits for its end. Its data stays.
set -euo pipefail
cd "$(dirname "$0")/.."
demo=${DEMO_DIR:-.demo}
patience=120 # seconds; running requests may finish

pid=$(cat "$demo/up.pid" 2>/dev/null || true)
# The process id may have been reused: check the command too, if ps is available.
ours() {
  [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null || return 1
  case $(ps -o args= -p "$pid" 2>/dev/null || echo "clearml-serving up") in *"clearml-serving up"*) ;; *) return 1 ;; esac
}
if ! ours; then
  rm -f "$demo/up.pid"
  echo "demo: not running"
  exit 0
fi
echo "demo: stopping process $pid"
kill -TERM "$pid"
for _ in $(seq $((patience * 10))); do
  ours || { rm -f "$demo/up.pid"; echo "demo: stopped"; exit 0; }
  sleep 0.1
done
echo "demo: process $pid did not end within $patience s; its last lines:" >&2
tail -n 10 "$demo/up.log" >&2
exit 1
