#!/usr/bin/env bash
# The test of make e2e-kubernetes: images, cluster, test. KUBERNETES_HOME is the cluster's folder (.cache/kubernetes).
set -euo pipefail
cd "$(dirname "$0")/../.."
home=$(realpath -m "${KUBERNETES_HOME:-.cache/kubernetes}")
NODES=2 scripts/kubernetes/up.sh "$home"
export IMAGE_ARGS="--pull-never --network host ${IMAGE_ARGS:-}"
# Two releases of the program: they differ in what they say of themselves, so that an update replaces every pod.
for tag in before now; do
  TAG=$tag scripts/images.sh inference server
  for image in inference server; do
    archive=$home/img/clearml-serving-$image-$tag.tar
    rm -f "$archive"
    buildah push --quiet "localhost/clearml-serving-$image:$tag" "docker-archive:$archive:localhost/clearml-serving-$image:$tag"
    "$home/load" "$archive"
  done
done
status=0
CLEARML_SERVING_E2E=1 CLEARML_SERVING_E2E_KUBERNETES=$home go test -count=1 -timeout 60m -v -run '^TestKubernetes' ./e2e/kubernetes || status=$?
scripts/kubernetes/down.sh "$home"
exit $status
