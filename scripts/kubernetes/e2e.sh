#!/usr/bin/env bash
# The test of make e2e-kubernetes: images, cluster, test. KUBERNETES_HOME is the cluster's folder (.cache/kubernetes).
set -euo pipefail
cd "$(dirname "$0")/../.."
home=$(realpath -m "${KUBERNETES_HOME:-.cache/kubernetes}")
NODES=2 scripts/kubernetes/up.sh "$home" # NO_METRICS=1: without what the autoscaler needs
export IMAGE_ARGS="--pull-never --network host ${IMAGE_ARGS:-}"
# Two names of the same images stand for two releases: an update replaces every pod.
TAG=now scripts/images.sh inference server
archive=$home/img/clearml-serving.tar
for image in inference server; do podman tag "localhost/clearml-serving-$image:now" "localhost/clearml-serving-$image:before"; done
rm -f "$archive"
podman save --quiet --multi-image-archive --format docker-archive -o "$archive" localhost/clearml-serving-{inference,server}:{before,now}
"$home/load" "$archive"
status=0
CLEARML_SERVING_E2E=1 CLEARML_SERVING_E2E_KUBERNETES=$home go test -count=1 -timeout 60m -v -run '^TestKubernetes' ./e2e/kubernetes || status=$?
scripts/kubernetes/down.sh "$home"
exit $status
