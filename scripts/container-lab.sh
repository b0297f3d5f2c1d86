#!/usr/bin/env bash
# container-lab.sh [FOLDER]: base images without any container registry, so that an ordinary Dockerfile's
# FROM resolves locally: debian:bookworm-slim, python:3.11-slim-bookworm, golang:<the version in go.mod>-bookworm.
# FOLDER is .cache/containers unless it is given. Needs root and Debian; installs what is missing.
# Afterwards:  . FOLDER/env.sh; podman build --pull=never -t localhost/x:1 .;  podman run --pull never ...
set -euo pipefail
tree=$(cd "$(dirname "$0")/.." && pwd)
D=$(realpath -m "${1:-${IMG_DIR:-$tree/.cache/containers}}"); NICE=${NICE:-10}
[ "$(id -u)" = 0 ] || { echo "needs root"; exit 1; }
mkdir -p "$D"
missing=""
for p in buildah podman runc netavark aardvark-dns mmdebstrap iptables jq ca-certificates; do
  dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null | grep -qx installed || missing="$missing $p"; done
if [ -n "$missing" ]; then
  export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
  apt-get update >"$D/apt.log" 2>&1; nice -n "$NICE" apt-get install -y --no-install-recommends $missing >>"$D/apt.log" 2>&1
  unset RUNLEVEL
fi
# crun refuses this machine's cgroups (hybrid mode) -> runc; root lacks CAP_SYS_RESOURCE -> low
# ulimits; no systemd -> cgroupfs, file events, k8s-file logs
cat >"$D/containers.conf" <<X
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
log_driver = "k8s-file"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_backend = "netavark"
network_config_dir = "$D/networks"
X
printf '[storage]\ndriver = "overlay"\ngraphroot = "%s/store"\nrunroot = "%s/run"\n' "$D" "$D" >"$D/storage.conf"
cat >"$D/env.sh" <<X
export CONTAINERS_CONF=$D/containers.conf CONTAINERS_STORAGE_CONF=$D/storage.conf BUILDAH_ISOLATION=oci BUILDAH_RUNTIME=runc
X
. "$D/env.sh"
have() { buildah inspect --type image "$1" >/dev/null 2>&1; }
BASE=docker.io/library/debian:bookworm-slim PY=docker.io/library/python:3.11-slim-bookworm
GO=docker.io/library/golang:$(awk '$1 == "go" { split($2, v, "."); print v[1] "." v[2] }' "$tree/go.mod")-bookworm
if ! have $BASE || ! have $PY; then
  [ -s "$D/base.tar" ] || { nice -n "$NICE" mmdebstrap --variant=minbase --include=python3,python3-pip,python3-venv,ca-certificates \
      --dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
      --aptopt='Acquire::Languages "none"' bookworm "$D/base.tmp.tar" >"$D/mmdebstrap.log" 2>&1; mv "$D/base.tmp.tar" "$D/base.tar"; }
  c=$(buildah from scratch); m=$(buildah mount "$c")
  tar -C "$m" -xf "$D/base.tar" --exclude='./dev/*'
  ln -sf /usr/bin/python3 "$m/usr/local/bin/python"; rm -f "$m"/usr/lib/python3.*/EXTERNALLY-MANAGED
  cp -L /etc/ssl/certs/ca-certificates.crt "$m/etc/ssl/certs/ca-certificates.crt"   # the CAs this machine trusts
  buildah config --env PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin --env LANG=C.UTF-8 --cmd python3 "$c"
  buildah umount "$c" >/dev/null; i=$(buildah commit -q --format docker --rm "$c" $PY); buildah tag "$i" $BASE
fi
if ! have $GO && command -v go >/dev/null; then
  c=$(buildah from --pull-never $BASE); m=$(buildah mount "$c"); mkdir -p "$m/go" "$m/usr/local/go"
  tar -C "$(go env GOROOT)" --exclude=./test --exclude=./doc -cf - . | tar -C "$m/usr/local/go" -xf -
  buildah config --env PATH=/go/bin:/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin --env GOPATH=/go --env GOTOOLCHAIN=local --workingdir /go --cmd bash "$c"
  buildah umount "$c" >/dev/null; buildah commit -q --format docker --rm "$c" $GO >/dev/null
fi
buildah images
echo ". $D/env.sh"
