#!/usr/bin/env bash
# KServe's own controller in the cluster that up.sh has started, from its Go module: the program, its charts and their runtimes.
#   kserve.sh [FOLDER]          FOLDER is that of up.sh; KSERVE_V=v0.15.2
# There is no cert-manager: what it would do, a certificate for the webhooks and its authority in their configurations, is done here.
set -euo pipefail
D=$(realpath -m "${1:-$(cd "$(dirname "$0")/../.." && pwd)/.cache/kubernetes}")
KSERVE_V=${KSERVE_V:-v0.15.2}
export KUBECONFIG=$D/kubeconfig
K() { "$D/bin/kubectl" "$@"; }
source=$(go mod download -json "github.com/kserve/kserve@$KSERVE_V" | jq -r .Dir)
if [ "$(cat "$D/bin/.kserve" 2>/dev/null)" != "$KSERVE_V" ]; then
  echo "kserve: building its controller $KSERVE_V"
  mkdir -p "$D/src/kserve"
  printf 'module lab/kserve\n\ngo 1.24.4\n\nrequire github.com/kserve/kserve %s\n' "$KSERVE_V" >"$D/src/kserve/go.mod"
  (cd "$D/src/kserve" && CGO_ENABLED=0 GOFLAGS="-mod=mod -buildvcs=false" nice -n 10 go build -trimpath -ldflags '-s -w' \
    -o manager github.com/kserve/kserve/cmd/manager) >"$D/log/build-kserve.log" 2>&1 || { tail -20 "$D/log/build-kserve.log" >&2; exit 1; }
  "$D/mkimage" "localhost/kserve-controller:$KSERVE_V" "$D/img/kserve.tar" "$D/src/kserve/manager"
  echo "$KSERVE_V" >"$D/bin/.kserve"
fi
"$D/load" "$D/img/kserve.tar"
K get namespace kserve >/dev/null 2>&1 || K create namespace kserve >/dev/null
name=kserve-webhook-server-service.kserve.svc
if ! K -n kserve get secret kserve-webhook-server-cert >/dev/null 2>&1; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=$name" -addext "subjectAltName=DNS:$name" \
    -keyout "$work/tls.key" -out "$work/tls.crt" 2>"$D/log/openssl-kserve.log"
  K -n kserve create secret tls kserve-webhook-server-cert --cert="$work/tls.crt" --key="$work/tls.key" >/dev/null
fi
authority=$(K -n kserve get secret kserve-webhook-server-cert -o 'jsonpath={.data.tls\.crt}')
apply() { K -n kserve apply --server-side --force-conflicts -f "$1" >"$D/log/kserve.log" 2>&1 || { cat "$D/log/kserve.log" >&2; exit 1; }; }
for file in "$source"/config/crd/full/serving.*.yaml; do apply "$file"; done
# Without the certificates of cert-manager and the proxy before the metrics. The runtimes come later: a webhook checks them.
"$D/bin/helm" template kserve "$source/charts/kserve-resources" --namespace kserve \
  --set kserve.controller.image=localhost/kserve-controller,kserve.controller.tag="$KSERVE_V",kserve.controller.deploymentMode=RawDeployment \
  --set kserve.controller.gateway.disableIngressCreation=true,kserve.controller.gateway.disableIstioVirtualHost=true \
  --set kserve.controller.resources.requests.cpu=20m,kserve.controller.resources.limits.cpu=1,kserve.controller.securityContext.runAsUser=65532 |
  python3 -c '
import re, sys

authority, controller, runtimes = sys.argv[1:]
files = {False: open(controller, "w"), True: open(runtimes, "w")}
for text in re.split(r"(?m)^---$", sys.stdin.read()):
    if "apiVersion: cert-manager.io" in text or not text.strip():
        continue
    text = re.sub(r"(?ms)^      - name: kube-rbac-proxy\n.*?(?=^      - command:)", "", text)
    text = re.sub(r"(?m)^( *(?:- )?)clientConfig:$", lambda m: m[0] + "\n" + " " * len(m[1]) + "  caBundle: " + authority, text)
    files["apiVersion: serving.kserve.io" in text].write("---\n" + text)
' "$authority" "$D/kserve.yaml" "$D/kserve-runtimes.yaml"
apply "$D/kserve.yaml"
K -n kserve rollout status deployment/kserve-controller-manager --timeout=5m >/dev/null
apply "$D/kserve-runtimes.yaml"
echo "kserve: the controller $KSERVE_V is ready"
