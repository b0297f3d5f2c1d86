#!/usr/bin/env bash
# down.sh [FOLDER] [--purge]: ends exactly the node that up.sh started in FOLDER. Its pid 1 is killed
# by pid (after checking its start time); the kernel then ends every process of that pid namespace
# and drops its mounts, network and bridges. --purge also removes FOLDER's state and binaries.
set -uo pipefail
PURGE=; ARGS=(); for a; do [ "$a" = --purge ] && PURGE=1 || ARGS+=("$a"); done
D=$(realpath -m "${ARGS[0]:-${K8S_DIR:-$(cd "$(dirname "$0")/../.." && pwd)/.cache/kubernetes}}") R="" CG=k8slab
R=$D/run
[ -d "$D" ] || exit 0
if [ -z "${K8S_LOCKED:-}" ]; then exec 9>"$D/.lock"; flock -w 600 9 || exit 1; fi
rc=0
N=$(cat "$R/node0.pid" 2>/dev/null) START=$(cat "$R/node0.start" 2>/dev/null)
same() { [ -n "$N" ] && [ -n "$START" ] && [ "$(awk '{print $22}' "/proc/$N/stat" 2>/dev/null)" = "$START" ]; }
if same; then
  kill -KILL "$N"
  for i in $(seq 100); do same || break; sleep 0.1; done
  same && { echo "node process $N does not end"; rc=1; }
fi
# its cgroups, deepest first (empty once the processes are gone)
for i in 1 2 3 4 5 6 7 8 9 10; do
  left=
  for c in /sys/fs/cgroup/*/$CG; do [ -d "$c" ] && { find "$c" -depth -type d -exec rmdir {} + 2>/dev/null; [ -d "$c" ] && left=$c; }; done
  [ -z "$left" ] && break; sleep 0.5
done
[ -z "${left:-}" ] || { echo "cgroup $left is still in use"; rc=1; }
rm -rf "$D/state" "$R"/node[0-9].pid "$R"/node0.start "$R"/api.sock
[ -z "$PURGE" ] || rm -rf "$D"
exit $rc
