#!/bin/sh
# Starts the storage servers for the tests of S3, Google Storage and Azure on
# free ports of this machine, runs a command with their addresses, and stops them.
#   scripts/storage-servers.sh COMMAND [ARGUMENT …]
# The command gets CLEARML_SERVING_TEST_S3, …_S3_OTHER, …_GS and …_AZURE.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
tools=$root/bin/tools
azurite=$root/.cache/azurite/node_modules/azurite/dist/src/blob/main.js
work=$(mktemp -d)
pids=

stop() {
	for pid in $pids; do kill "$pid" 2>/dev/null || true; done
	for pid in $pids; do wait "$pid" 2>/dev/null || true; done
	rm -rf "$work"
}
trap stop EXIT
trap 'exit 130' INT TERM

free_port() {
	python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# answers URL PID NAME: waits until the server at URL gives any answer at all.
answers() {
	tries=0
	until curl -s -o /dev/null --max-time 2 "$1"; do
		tries=$((tries + 1))
		if [ $tries -gt 300 ] || ! kill -0 "$2" 2>/dev/null; then
			echo "storage-servers: $3 does not start; its log:" >&2
			tail -20 "$work/$3.log" >&2
			exit 1
		fi
		sleep 0.2
	done
	echo "storage-servers: $3 answers at $1"
}

s3=$(free_port) other=$(free_port) gs=$(free_port) blob=$(free_port)
mkdir -p "$work/minio" "$work/versity" "$work/azurite"

MINIO_ROOT_USER=testkey MINIO_ROOT_PASSWORD=testsecret MINIO_BROWSER=off \
	"$tools/minio" server "$work/minio" --address "127.0.0.1:$s3" >"$work/minio.log" 2>&1 &
minio_pid=$!
pids="$pids $minio_pid"
"$tools/versitygw" --access testkey --secret testsecret --port "127.0.0.1:$other" posix "$work/versity" >"$work/versitygw.log" 2>&1 &
versity_pid=$!
pids="$pids $versity_pid"
"$tools/fake-gcs-server" -scheme http -host 127.0.0.1 -port "$gs" -public-host "127.0.0.1:$gs" \
	-backend filesystem -filesystem-root "$work/gcs" -external-url "http://127.0.0.1:$gs" >"$work/fake-gcs-server.log" 2>&1 &
gs_pid=$!
pids="$pids $gs_pid"
node "$azurite" --blobHost 127.0.0.1 --blobPort "$blob" --location "$work/azurite" --skipApiVersionCheck --disableTelemetry --silent >"$work/azurite.log" 2>&1 &
blob_pid=$!
pids="$pids $blob_pid"

answers "http://127.0.0.1:$s3/minio/health/live" "$minio_pid" minio
answers "http://127.0.0.1:$other/" "$versity_pid" versitygw
answers "http://127.0.0.1:$gs/storage/v1/b" "$gs_pid" fake-gcs-server
answers "http://127.0.0.1:$blob/" "$blob_pid" azurite

export CLEARML_SERVING_TEST_S3="http://127.0.0.1:$s3"
export CLEARML_SERVING_TEST_S3_OTHER="http://127.0.0.1:$other"
export CLEARML_SERVING_TEST_GS="http://127.0.0.1:$gs"
export CLEARML_SERVING_TEST_AZURE="http://127.0.0.1:$blob"
"$@"
