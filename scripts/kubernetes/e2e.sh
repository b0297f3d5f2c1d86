#!/usr/bin/env bash
# The test of make e2e-kubernetes: images, cluster, KServe, test.
# KUBERNETES_HOME is the cluster's folder (.cache/kubernetes), PREVIOUS the commit whose chart and images are "before",
# TESTS a regular expression of the tests that run, NO_KSERVE=1 leaves KServe out.
set -euo pipefail
cd "$(dirname "$0")/../.."
home=$(realpath -m "${KUBERNETES_HOME:-.cache/kubernetes}")
NODES=2 scripts/kubernetes/up.sh "$home" # NO_METRICS=1: without what the autoscaler needs
[ -n "${NO_KSERVE:-}" ] || scripts/kubernetes/kserve.sh "$home"
export IMAGE_ARGS="--pull-never --network host ${IMAGE_ARGS:-}"
TAG=now scripts/images.sh inference server
before=$home/before
rm -rf "$before"
if id=$(git rev-parse --verify --quiet "${PREVIOUS:?}^{commit}"); then
  echo "e2e-kubernetes: before is $(git log -1 --format='%h of %cs' "$id"), $(git rev-list --count "$id..HEAD") commits before this"
  mkdir -p "$before"
  git archive "$id" | tar -x -C "$before"
  make -s -C "$before" image-programs VERSION="v0.0.1-$(git rev-parse --short "$id")" COMMIT="$(git rev-parse --short "$id")"
  TAG=before "$before/scripts/images.sh" inference server
else
  echo "e2e-kubernetes: the clone has no commit $PREVIOUS: before is the same chart, and the same images under another tag" >&2
  mkdir -p "$before/helm"
  cp -r helm/clearml-serving-go "$before/helm/"
  for image in inference server; do podman tag "localhost/clearml-serving-$image:now" "localhost/clearml-serving-$image:before"; done
fi
archive=$home/img/clearml-serving.tar
rm -f "$archive"
podman save --quiet --multi-image-archive --format docker-archive -o "$archive" localhost/clearml-serving-{inference,server}:{before,now}
"$home/load" "$archive"
rm -f "$archive"
status=0
CLEARML_SERVING_E2E=1 CLEARML_SERVING_E2E_KUBERNETES=$home go test -count=1 -timeout 90m -v -run "${TESTS:-^TestKubernetes}" ./e2e/kubernetes || status=$?
scripts/kubernetes/down.sh "$home"
exit $status
