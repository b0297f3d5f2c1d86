#!/usr/bin/env bash
# A real single-node Kubernetes, from package registries only (Debian packages + Go modules).
# Each node is a mount, network and pid namespace with a cgroup of its own (the second and third
# nested in the first). Nothing on the machine's own network, /run, /var/lib or sysctls is changed;
# the nodes have no route out. The API is reachable from outside on 127.0.0.1:$API_PORT (through a unix socket).
#
#   up.sh [FOLDER]              default $(cd "$(dirname "$0")/../.." && pwd)/.cache/kubernetes; last line printed: KUBECONFIG=...
#   FOLDER/enter [-n N] CMD...  runs CMD inside node N, default 0 (curl a ClusterIP, ctr, iptables, ...)
#   FOLDER/load IMAGE.tar...    imports docker-archive/oci tars into every node's containerd
#   FOLDER/mkimage NAME:TAG OUT.tar BINARY [ARG...]   one static binary -> an image tar, no builder
#   down.sh [FOLDER]            stops it all
# Settings (environment): NODES=1 (up to 3) API_PORT=16443 PROXY_MODE=iptables|nftables NICE=10 KUBE_V=v1.33.0
#   HELM_V COREDNS_V MSERVER_V;  SKIP_BUILD=1 (fail rather than build);  BUILD_ONLY=1;  NO_METRICS=1 (no metrics-server)
set -euo pipefail

D=$(realpath -m "${1:-${K8S_DIR:-$(cd "$(dirname "$0")/../.." && pwd)/.cache/kubernetes}}")
API_PORT=${API_PORT:-16443}
PROXY_MODE=${PROXY_MODE:-iptables}
NICE=${NICE:-10}
KUBE_V=${KUBE_V:-v1.33.0}
HELM_V=${HELM_V:-v3.18.0}
COREDNS_V=${COREDNS_V:-v1.12.2}
MSERVER_V=${MSERVER_V:-v0.8.0}
NODES=${NODES:-1}
NODE=lab NODE_IP=10.200.0.10   # node 0; node i is lab$((i+1)) at 10.200.0.1i with pods 10.244.i.0/24
POD_NET=10.244.0.0/16 SVC_NET=10.96.0.0/16 API_IP=10.96.0.1 DNS_IP=10.96.0.10
CG=k8slab
case $NODES in 1|2|3) ;; *) echo "NODES must be 1, 2 or 3"; exit 2;; esac
B=$D/bin S=$D/state L=$D/log R=$D/run P=$D/pki
HERE=$(cd "$(dirname "$0")" && pwd)
say() { printf '[%4ss] %s\n' "$SECONDS" "$*"; }
die() { say "FAILED: $*"; exit 1; }
[ "$(id -u)" = 0 ] || die "needs root"
mkdir -p "$B" "$L" "$R" "$D/img" "$D/src"
exec 9>"$D/.lock"; flock -w 3600 9 || die "another up.sh holds $D/.lock"

# ---------------------------------------------------------------- 1. Debian packages
PKGS="containerd runc containernetworking-plugins etcd-server etcd-client iptables nftables conntrack ipset socat tini iproute2 procps util-linux openssl curl jq"
missing=""
for p in $PKGS; do dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null | grep -qx installed || missing="$missing $p"; done
if [ -n "$missing" ]; then
  say "apt-get install$missing"
  # RUNLEVEL=1 keeps a postinst from starting etcd/containerd where no policy-rc.d forbids it
  export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
  { apt-get update && nice -n "$NICE" apt-get install -y --no-install-recommends $missing; } >"$L/apt.log" 2>&1 9>&- \
    || { tail -20 "$L/apt.log"; die "apt-get (see $L/apt.log)"; }
  unset RUNLEVEL
fi

# ---------------------------------------------------------------- 2. Go builds
# kubernetes' own go.mod replaces its 31 staging modules by ./staging paths, which a module zip
# does not hold: a module of our own requires it and points them at the published v0.X versions.
gomod_of() { go mod download -json "$1" 9>&- | jq -r .GoMod; }
build() { # build NAME MODULE@VERSION PACKAGE [LDFLAGS]   (in $D/src/kube or $D/src/NAME)
  local name=$1 stamp="$B/.$1.stamp" want="$2 $3 ${4:-} $(go version)"
  [ -x "$B/$name" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$want" ] && return 0
  [ -z "${SKIP_BUILD:-}" ] || die "$name is not built and SKIP_BUILD is set"
  local t=$SECONDS; say "building $name ($2)"
  ( cd "$SRC" && CGO_ENABLED=0 GOFLAGS="-mod=mod -buildvcs=false" nice -n "$NICE" \
      go build -trimpath -ldflags "-s -w ${4:-}" -o "$B/$name.new" "$3" ) >"$L/build-$name.log" 2>&1 9>&- \
    || { grep -v '^go: downloading' "$L/build-$name.log" | tail -20; die "build of $name (see $L/build-$name.log)"; }
  mv "$B/$name.new" "$B/$name"; echo "$want" >"$stamp"; say "built $name in $((SECONDS-t)) s"
}
staging() { # the replace lines, taken from kubernetes' own go.mod
  sed -nE 's#^[[:space:]]*(k8s\.io/[a-z0-9-]+) => \./staging/src/k8s\.io/.*#replace \1 => \1 v0.'"${KUBE_V#v1.}"'#p' "$KMOD"
}
module() { # module DIR PATH VERSION [EXTRA-LINES]: (re)writes DIR/go.mod only when the wish changed
  local want; want="$2 $3 $KUBE_V ${4:-}"; mkdir -p "$D/src/$1"; SRC=$D/src/$1
  [ "$(cat "$SRC/.want" 2>/dev/null)" = "$want" ] && return 0
  { printf 'module lab/%s\n\ngo 1.24.4\n\nrequire %s %s\n%s\n' "$1" "$2" "$3" "${4:-}"; staging; } >"$SRC/go.mod"
  rm -f "$SRC/go.sum"; echo "$want" >"$SRC/.want"
}
programs="kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl coredns helm pause"
[ -n "${NO_METRICS:-}" ] || programs="$programs metrics-server"
all_built=1; for b in $programs; do [ -x "$B/$b" ] || all_built=; done
if [ -z "$all_built" ] || { [ -z "${NO_METRICS:-}" ] && [ "$(cat "$B/.versions" 2>/dev/null)" != "$KUBE_V $HELM_V $COREDNS_V $MSERVER_V" ]; }; then
  command -v go >/dev/null || die "no Go toolchain"
  KMOD=$(gomod_of "k8s.io/kubernetes@$KUBE_V"); [ -f "$KMOD" ] || die "go mod download k8s.io/kubernetes@$KUBE_V"
  V=k8s.io/component-base/version
  minor=${KUBE_V#v1.}; minor=${minor%%.*}
  # without gitVersion the server calls itself v0.0.0-master and helm/kubectl refuse or complain
  LD="-X $V.gitVersion=$KUBE_V -X $V.gitMajor=1 -X $V.gitMinor=$minor -X $V.gitTreeState=archive -X $V.gitCommit=unknown"
  module kube k8s.io/kubernetes "$KUBE_V"
  for c in kubectl kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy; do
    build $c "k8s.io/kubernetes@$KUBE_V" k8s.io/kubernetes/cmd/$c "$LD"
  done
  module helm helm.sh/helm/v3 "$HELM_V"
  build helm "helm.sh/helm/v3@$HELM_V" helm.sh/helm/v3/cmd/helm "-X helm.sh/helm/v3/internal/version.version=$HELM_V"
  # CoreDNS with the plugins a cluster needs and without the cloud SDKs
  module coredns github.com/coredns/coredns "$COREDNS_V" "require k8s.io/client-go v0.${KUBE_V#v1.}"
  cat >"$SRC/main.go" <<'EOF'
package main

import (
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/forward"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/hosts"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/loadbalance"
	_ "github.com/coredns/coredns/plugin/log"
	_ "github.com/coredns/coredns/plugin/metrics"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/reload"
	_ "github.com/coredns/coredns/plugin/rewrite"
	_ "github.com/coredns/coredns/plugin/template"
	_ "github.com/coredns/coredns/plugin/whoami"
)

func main() { coremain.Run() }
EOF
  build coredns "github.com/coredns/coredns@$COREDNS_V" .
  mkdir -p "$D/src/pause"; SRC=$D/src/pause
  printf 'module lab/pause\n\ngo 1.21\n' >"$SRC/go.mod"
  cat >"$SRC/main.go" <<'EOF'
package main

import (
	"os"
	"os/signal"
	"syscall"
)

// The sandbox process: reaps orphans (shareProcessNamespace) and ends on SIGTERM/SIGINT.
func main() {
	c := make(chan os.Signal, 8)
	signal.Notify(c, syscall.SIGTERM, syscall.SIGINT, syscall.SIGCHLD)
	for s := range c {
		if s != syscall.SIGCHLD {
			return
		}
		for {
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
				break
			}
		}
	}
	os.Exit(0)
}
EOF
  build pause lab/pause .
  if [ -z "${NO_METRICS:-}" ]; then
    module metrics-server sigs.k8s.io/metrics-server "$MSERVER_V"
    build metrics-server "sigs.k8s.io/metrics-server@$MSERVER_V" sigs.k8s.io/metrics-server/cmd/metrics-server
  fi
  [ -n "${NO_METRICS:-}" ] || echo "$KUBE_V $HELM_V $COREDNS_V $MSERVER_V" >"$B/.versions"
fi

# ---------------------------------------------------------------- 3. helpers and images
cat >"$D/enter" <<EOF
#!/bin/sh
# enter [-n N] CMD...: runs a command inside a node's namespaces and the cluster's cgroup
n=0; [ "\$1" = -n ] && { n=\$2; shift 2; }
for c in /sys/fs/cgroup/*/$CG/system; do echo 0 >"\$c/cgroup.procs"; done
read -r p <$R/node\$n.pid   # no child process here: make_node takes this one's first child for the node's
exec nsenter -t "\$p" -m -n -p -- "\$@"
EOF
cat >"$D/load" <<EOF
#!/bin/sh
# load IMAGE.tar...: into every running node
for p in $R/node[0-9].pid; do n=\${p##*/node}; n=\${n%.pid}
  for t; do $D/enter -n "\$n" ctr -n k8s.io images import "\$t" >/dev/null || exit 1; done
done
EOF
cat >"$D/mkimage" <<'EOF'
#!/usr/bin/env bash
# mkimage NAME:TAG OUT.tar BINARY [ARG...]: docker-archive with one layer: the binary, /etc/passwd, /tmp; runs as 65532
set -euo pipefail
ref=$1 out=$2 bin=$3; shift 3
w=$(mktemp -d); trap 'rm -rf "$w"' EXIT
mkdir -p "$w/rootfs/etc" "$w/rootfs/tmp"; chmod 1777 "$w/rootfs/tmp"; chmod 755 "$w/rootfs"
printf 'root:x:0:0:root:/:/none\nnonroot:x:65532:65532:nonroot:/:/none\n' >"$w/rootfs/etc/passwd"
n=$(basename "$bin"); install -m 755 "$bin" "$w/rootfs/$n"
tar -C "$w/rootfs" --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -cf "$w/layer.tar" .
id=$(sha256sum "$w/layer.tar" | cut -d' ' -f1)
args=$(for a in "/$n" "$@"; do printf '%s' "$a" | jq -Rs .; done | jq -sc .)
jq -nc --argjson e "$args" --arg id "$id" '{architecture:"amd64",os:"linux",created:"1970-01-01T00:00:00Z",config:{Entrypoint:$e,User:"65532:65532",Env:["PATH=/"]},rootfs:{type:"layers",diff_ids:["sha256:"+$id]},history:[{created_by:"mkimage"}]}' >"$w/config.json"
jq -nc --arg ref "$ref" '[{Config:"config.json",RepoTags:[$ref],Layers:["layer.tar"]}]' >"$w/manifest.json"
tar -C "$w" -cf "$out.tmp" manifest.json config.json layer.tar && mv "$out.tmp" "$out"
EOF
chmod +x "$D/enter" "$D/load" "$D/mkimage"
for i in pause coredns metrics-server; do
  [ -x "$B/$i" ] || continue
  [ "$D/img/$i.tar" -nt "$B/$i" ] || "$D/mkimage" localhost/$i:lab "$D/img/$i.tar" "$B/$i"
done
[ -z "${BUILD_ONLY:-}" ] || { say "built"; exit 0; }

# ---------------------------------------------------------------- 4. already up?
export KUBECONFIG=$D/kubeconfig
K() { "$B/kubectl" --request-timeout=10s "$@"; }
name_of() { [ "$1" = 0 ] && echo "$NODE" || echo "$NODE$(($1+1))"; }
ip_of() { echo "10.200.0.$((10+$1))"; }
nodes_ready() { [ "$(K get nodes -o jsonpath='{range .items[*]}{.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}' 2>/dev/null | grep -cx True)" = "$NODES" ]; }
alive() { [ -s "$R/node0.pid" ] && [ -s "$R/node0.start" ] && [ "$(awk '{print $22}' "/proc/$(cat "$R/node0.pid")/stat" 2>/dev/null)" = "$(cat "$R/node0.start")" ]; }
if alive; then
  if nodes_ready; then say "already up"; echo "KUBECONFIG=$KUBECONFIG"; exit 0; fi
  say "half up: taking it down first"
fi
K8S_LOCKED=1 bash "$HERE/down.sh" "$D" >/dev/null
[ -d /sys/fs/cgroup/memory ] && [ -d /sys/fs/cgroup/cpu ] || die "cgroup v1 controllers expected under /sys/fs/cgroup"
[ ! -d /sys/fs/cgroup/memory/$CG ] || [ -z "$(find /sys/fs/cgroup/memory/$CG -name cgroup.procs -exec cat {} + 2>/dev/null)" ] || die "another folder's node is up (cgroup $CG is in use)"
[ -z "$(ss -Hltn "sport = :$API_PORT")" ] || die "port $API_PORT is taken: set API_PORT"
START=$SECONDS

# ---------------------------------------------------------------- 5. certificates and tokens
if [ ! -s "$P/done" ]; then
  rm -rf "$P"; mkdir -p "$P"; chmod 700 "$P"
  ( cd "$P"; exec 2>"$L/openssl.log"
    ca() { openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=$2" -keyout $1.key -out $1.crt -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign,digitalSignature; }
    crt() { # crt NAME CA SUBJECT EXTENSIONS
      openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "$3" -keyout $1.key -out $1.csr
      openssl x509 -req -in $1.csr -CA $2.crt -CAkey $2.key -CAcreateserial -days 3650 -out $1.crt \
        -extfile <(printf 'basicConstraints=CA:FALSE\nkeyUsage=critical,digitalSignature,keyEncipherment\n%b\n' "$4"); }
    ca ca k8s-lab-ca; ca front front-proxy-ca
    crt apiserver ca /CN=kube-apiserver "extendedKeyUsage=serverAuth\nsubjectAltName=DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,DNS:localhost,IP:127.0.0.1,IP:$API_IP,IP:$NODE_IP"
    for i in 0 1 2; do crt kubelet$i ca "/O=system:nodes/CN=system:node:$(name_of $i)" "extendedKeyUsage=serverAuth\nsubjectAltName=DNS:$(name_of $i),IP:$(ip_of $i)"; done
    crt apiserver-kubelet ca "/O=system:masters/CN=apiserver-kubelet-client" extendedKeyUsage=clientAuth
    crt front-client front /CN=front-proxy-client extendedKeyUsage=clientAuth
    openssl genrsa -out sa.key 2048; openssl rsa -in sa.key -pubout -out sa.pub
    t() { printf '%s,%s,%s,"%s"\n' "$(openssl rand -hex 16)" "$2" "$1" "${3:-}"; }
    { t admin admin system:masters; t kcm system:kube-controller-manager; t sched system:kube-scheduler
      t proxy system:kube-proxy; for i in 0 1 2; do t node$i "system:node:$(name_of $i)" system:nodes; done; } >tokens.csv
    for u in admin kcm sched proxy node0 node1 node2; do
      tok=$(awk -F, -v u=$u '$3==u{print $1}' tokens.csv)
      printf 'apiVersion: v1\nkind: Config\nclusters:\n- {name: lab, cluster: {server: "https://%s:%s", certificate-authority-data: %s}}\nusers:\n- {name: %s, user: {token: %s}}\ncontexts:\n- {name: lab, context: {cluster: lab, user: %s}}\ncurrent-context: lab\n' \
        "$([ $u = admin ] && echo 127.0.0.1 || echo $NODE_IP)" "$API_PORT" "$(base64 -w0 ca.crt)" $u "$tok" $u >$u.conf
    done
    echo "$API_PORT" >done )
fi
[ "$(cat "$P/done")" = "$API_PORT" ] || { sed -i -E "s#(https://[0-9.]+):[0-9]+#\1:$API_PORT#" "$P"/*.conf; echo "$API_PORT" >"$P/done"; }
cp "$P/admin.conf" "$KUBECONFIG"; chmod 600 "$KUBECONFIG"

# ---------------------------------------------------------------- 6. the node: namespaces + cgroup
rm -rf "$S"
mkdir -p /var/lib/kubelet /var/lib/containerd /var/lib/cni /var/log/pods /var/log/containers /etc/cni  # mount points only
for c in /sys/fs/cgroup/*/; do
  [ -e "$c/cgroup.procs" ] || continue
  # cpuset: a new v1 group is unusable until cpus and mems are set, top down
  for g in "$c/$CG" "$c/$CG/system" "$c/$CG/n0" "$c/$CG/n1" "$c/$CG/n2"; do
    mkdir -p "$g"
    for f in cpuset.cpus cpuset.mems; do [ ! -e "$g/$f" ] || [ ! -e "$c/tasks" ] || cat "$c/$f" >"$g/$f"; done
  done
done
E="$D/enter"
child_of() { local i c; for i in $(seq 100); do c=$(pgrep -P "$1" || true); [ -z "$c" ] || { echo "$c"; return 0; }; sleep 0.1; done; return 1; }
make_node() { # make_node I: its namespaces, mounts and network
  local i=$1 n up S=$S/n$1
  mkdir -p "$S"/{kubelet,containerd,cni,pods,containers,cni-conf/net.d,tunables}
  local ns=(unshare --mount --net --pid --fork --mount-proc --kill-child --propagation private tini -s -- sleep infinity)
  if [ "$i" = 0 ]; then
    setsid nohup "${ns[@]}" </dev/null >"$L/node$i.log" 2>&1 9>&- & up=$!; disown
  else # nested in node 0, so that ending node 0 ends it too
    "$E" setsid nohup "${ns[@]}" </dev/null >"$L/node$i.log" 2>&1 9>&- & up=$!; disown; up=$(child_of $up)
  fi
  n=$(child_of $up) || die "no process for node $i"
  for _ in $(seq 100); do [ "$(cat /proc/$n/comm)" = tini ] && break; sleep 0.1; done
  echo "$n" >"$R/node$i.pid"; [ "$i" != 0 ] || awk '{print $22}' /proc/$n/stat >"$R/node0.start"
  # the kernel settings that kubelet insists on writing are shown to it as already set (bind mounts
  # in the node's own mount namespace), so the machine's own values stay as they are
  "$E" -n $i bash -euc '
    mount --make-rshared /
    mount -t tmpfs -o mode=755 tmpfs /run; mkdir -p /run/netns /run/lock
    S=$1
    b() { mount --bind "$S/$1" "$2"; }
    b kubelet /var/lib/kubelet; b containerd /var/lib/containerd; b cni /var/lib/cni
    b pods /var/log/pods; b containers /var/log/containers; b cni-conf /etc/cni
    t() { echo "$2" >"$S/tunables/${1//\//_}"; mount --bind "$S/tunables/${1//\//_}" "/proc/sys/$1"; }
    t vm/overcommit_memory 1; t vm/panic_on_oom 0; t kernel/panic 10; t kernel/panic_on_oops 1
    t kernel/keys/root_maxkeys 1000000; t kernel/keys/root_maxbytes 25000000
    ip link set lo up
    sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.route_localnet=1 net.ipv6.conf.all.disable_ipv6=1
    sysctl -qw net.bridge.bridge-nf-call-iptables=1 || true
    printf "nameserver 127.0.0.1\n" >/run/resolv.conf
  ' _ "$S" || die "set-up of node $i"
  # node 0 holds a bridge with everyone's address range; the default route leads into it and no
  # further, so nothing can leave. (This kernel has no dummy device: a veth pair gives it carrier.)
  if [ "$i" = 0 ]; then
    "$E" bash -euc 'ip link add nodes type bridge; ip link add up0 type veth peer name up1; ip link set up0 master nodes
      ip link set up0 up; ip link set up1 up; ip addr add '$NODE_IP'/24 dev nodes; ip link set nodes up; ip route add default dev nodes'
  else
    nsenter -t "$(cat "$R/node0.pid")" -n ip link add nv$i type veth peer name nodes netns $n
    "$E" bash -euc "ip link set nv$i master nodes up; ip route add 10.244.$i.0/24 via $(ip_of $i)"
    "$E" -n $i bash -euc "ip addr add $(ip_of $i)/24 dev nodes; ip link set nodes up; ip route add default dev nodes; ip route add 10.244.0.0/24 via $NODE_IP"
    for j in $(seq 1 $((i-1))); do
      "$E" -n $i ip route add 10.244.$j.0/24 via "$(ip_of $j)"; "$E" -n $j ip route add 10.244.$i.0/24 via "$(ip_of $i)"
    done
  fi
}
for i in $(seq 0 $((NODES-1))); do make_node $i; done

AT=0
svc() { local n=$1; shift; say "start $n"; "$E" -n $AT setsid nohup "$@" </dev/null >"$L/$n.log" 2>&1 9>&- & disown; }
wait_for() { # wait_for SECONDS WHAT CMD...
  local t=$((SECONDS+$1)) w=$2; shift 2
  until "$@" >/dev/null 2>&1; do alive || die "the node died"; [ $SECONDS -lt $t ] || { tail -5 "$L"/*.log; die "$w not ready"; }; sleep 0.3; done; say "$w ready"
}

# ---------------------------------------------------------------- 7. control plane
svc etcd etcd --name lab --data-dir /run/etcd --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
  --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 --initial-cluster lab=http://127.0.0.1:2380 \
  --logger zap --auto-compaction-retention 1h
wait_for 60 etcd "$E" curl -sf http://127.0.0.1:2379/health
svc kube-apiserver "$B/kube-apiserver" --etcd-servers=http://127.0.0.1:2379 --bind-address=0.0.0.0 --advertise-address=$NODE_IP --secure-port=$API_PORT \
  --tls-cert-file=$P/apiserver.crt --tls-private-key-file=$P/apiserver.key --client-ca-file=$P/ca.crt --token-auth-file=$P/tokens.csv \
  --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --anonymous-auth=false --allow-privileged=true \
  --service-account-issuer=https://kubernetes.default.svc.cluster.local --service-account-key-file=$P/sa.pub --service-account-signing-key-file=$P/sa.key \
  --service-cluster-ip-range=$SVC_NET --kubelet-preferred-address-types=InternalIP --kubelet-certificate-authority=$P/ca.crt \
  --kubelet-client-certificate=$P/apiserver-kubelet.crt --kubelet-client-key=$P/apiserver-kubelet.key \
  --requestheader-client-ca-file=$P/front.crt --requestheader-allowed-names=front-proxy-client --requestheader-username-headers=X-Remote-User \
  --requestheader-group-headers=X-Remote-Group --requestheader-extra-headers-prefix=X-Remote-Extra- \
  --proxy-client-cert-file=$P/front-client.crt --proxy-client-key-file=$P/front-client.key --profiling=false
# the machine's 127.0.0.1:API_PORT -> unix socket -> the same port in the node (both ends die with the node)
svc api-in socat UNIX-LISTEN:$R/api.sock,fork,mode=600 TCP:127.0.0.1:$API_PORT
( for c in /sys/fs/cgroup/*/$CG/system; do echo 0 >"$c/cgroup.procs"; done
  exec setsid nohup nsenter -t "$(cat "$R/node0.pid")" -m -p -- socat TCP-LISTEN:$API_PORT,bind=127.0.0.1,reuseaddr,fork UNIX-CONNECT:$R/api.sock ) </dev/null >"$L/api-out.log" 2>&1 9>&- & disown
wait_for 120 kube-apiserver K get --raw /readyz
svc kube-controller-manager "$B/kube-controller-manager" --kubeconfig=$P/kcm.conf --authentication-kubeconfig=$P/kcm.conf --authorization-kubeconfig=$P/kcm.conf \
  --bind-address=127.0.0.1 --leader-elect=false --use-service-account-credentials=true --root-ca-file=$P/ca.crt --service-account-private-key-file=$P/sa.key \
  --cluster-signing-cert-file=$P/ca.crt --cluster-signing-key-file=$P/ca.key --cluster-cidr=$POD_NET --allocate-node-cidrs=false \
  --horizontal-pod-autoscaler-sync-period=5s --horizontal-pod-autoscaler-initial-readiness-delay=10s --horizontal-pod-autoscaler-cpu-initialization-period=20s --profiling=false
svc kube-scheduler "$B/kube-scheduler" --kubeconfig=$P/sched.conf --authentication-kubeconfig=$P/sched.conf --authorization-kubeconfig=$P/sched.conf \
  --bind-address=127.0.0.1 --leader-elect=false --profiling=false

# ---------------------------------------------------------------- 8. containerd, CNI
cat >"$D/containerd.toml" <<EOF
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
oom_score = 0
disabled_plugins = ["io.containerd.snapshotter.v1.aufs","io.containerd.snapshotter.v1.btrfs","io.containerd.snapshotter.v1.devmapper","io.containerd.snapshotter.v1.zfs","io.containerd.internal.v1.opt","io.containerd.tracing.processor.v1.otlp"]
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:lab"
  # this VM's root lacks CAP_SYS_RESOURCE: without this every sandbox dies on oom_score_adj -998
  restrict_oom_score_adj = true
  disable_apparmor = true
  tolerate_missing_hugetlb_controller = true
  disable_hugetlb_controller = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        BinaryName = "/usr/sbin/runc"
        SystemdCgroup = false
EOF
for AT in $(seq 0 $((NODES-1))); do
cat >"$S/n$AT/cni-conf/net.d/10-lab.conflist" <<EOF
{"cniVersion":"0.4.0","name":"lab","plugins":[
 {"type":"bridge","bridge":"cni0","isGateway":true,"ipMasq":false,"hairpinMode":true,
  "ipam":{"type":"host-local","ranges":[[{"subnet":"10.244.$AT.0/24"}]],"routes":[{"dst":"0.0.0.0/0"}]}},
 {"type":"portmap","capabilities":{"portMappings":true}}]}
EOF
svc containerd$AT containerd -c "$D/containerd.toml"
done
for i in $(seq 0 $((NODES-1))); do wait_for 60 containerd$i "$E" -n $i ctr version; done
for i in pause coredns metrics-server; do [ ! -x "$B/$i" ] || "$D/load" "$D/img/$i.tar"; done; say "images imported"

# ---------------------------------------------------------------- 9. kubelet, kube-proxy
for AT in $(seq 0 $((NODES-1))); do
cat >"$D/kubelet$AT.yaml" <<EOF
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $(ip_of $AT)
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $P/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $P/kubelet$AT.crt
tlsPrivateKeyFile: $P/kubelet$AT.key
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /$CG/n$AT
failCgroupV1: false
failSwapOn: false
oomScoreAdj: 0
clusterDNS: [$DNS_IP]
clusterDomain: cluster.local
resolvConf: /run/resolv.conf
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%, nodefs.inodesFree: 1%}
systemReserved: {memory: 1Gi}
nodeStatusUpdateFrequency: 5s
syncFrequency: 10s
EOF
svc kubelet$AT "$B/kubelet" --config="$D/kubelet$AT.yaml" --kubeconfig=$P/node$AT.conf --node-ip=$(ip_of $AT) --hostname-override=$(name_of $AT)
svc kube-proxy$AT "$B/kube-proxy" --kubeconfig=$P/proxy.conf --proxy-mode=$PROXY_MODE --cluster-cidr=$POD_NET --hostname-override=$(name_of $AT) --oom-score-adj=0 \
  --conntrack-max-per-core=0 --conntrack-tcp-timeout-established=0s --conntrack-tcp-timeout-close-wait=0s --healthz-bind-address=127.0.0.1:10256 --metrics-bind-address=127.0.0.1:10249
done

# ---------------------------------------------------------------- 10. add-ons: DNS, metrics
wait_for 60 "default namespace" K get ns kube-system default
K apply -f - >/dev/null <<EOF
apiVersion: v1
kind: ServiceAccount
metadata: {name: coredns, namespace: kube-system}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: system:coredns}
rules:
- {apiGroups: [""], resources: [endpoints, services, pods, namespaces], verbs: [list, watch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: system:coredns}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: system:coredns}
subjects: [{kind: ServiceAccount, name: coredns, namespace: kube-system}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: coredns, namespace: kube-system}
data:
  Corefile: |
    cluster.local:53 in-addr.arpa:53 {
        errors
        health :8082
        ready :8181
        kubernetes cluster.local in-addr.arpa {
           pods insecure
           ttl 5
        }
        cache 5
        loadbalance
    }
    # any other name does not exist here (template runs before kubernetes: keep it in a block of its own)
    .:53 {
        template ANY ANY {
           rcode NXDOMAIN
        }
    }
---
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system, labels: {k8s-app: kube-dns}}
spec:
  clusterIP: $DNS_IP
  selector: {k8s-app: kube-dns}
  ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: coredns, namespace: kube-system, labels: {k8s-app: kube-dns}}
spec:
  replicas: 1
  selector: {matchLabels: {k8s-app: kube-dns}}
  template:
    metadata: {labels: {k8s-app: kube-dns}}
    spec:
      serviceAccountName: coredns
      priorityClassName: system-cluster-critical
      dnsPolicy: Default
      nodeSelector: {kubernetes.io/hostname: $NODE}   # tests end the other nodes
      tolerations: [{operator: Exists}]
      containers:
      - name: coredns
        image: localhost/coredns:lab
        imagePullPolicy: Never
        args: [-conf, /etc/coredns/Corefile]
        resources: {requests: {cpu: 20m, memory: 40Mi}, limits: {memory: 170Mi}}
        ports: [{containerPort: 53, protocol: UDP}, {containerPort: 53, protocol: TCP}]
        readinessProbe: {httpGet: {path: /ready, port: 8181}, periodSeconds: 2}
        securityContext: {runAsUser: 0, readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL], add: [NET_BIND_SERVICE]}}
        volumeMounts: [{name: c, mountPath: /etc/coredns}]
      volumes: [{name: c, configMap: {name: coredns}}]
EOF
if [ -x "$B/metrics-server" ]; then
K apply -f - >/dev/null <<EOF
apiVersion: v1
kind: ServiceAccount
metadata: {name: metrics-server, namespace: kube-system}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: system:metrics-server}
rules:
- {apiGroups: [""], resources: [nodes/metrics], verbs: [get]}
- {apiGroups: [""], resources: [pods, nodes], verbs: [get, list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: system:aggregated-metrics-reader, labels: {rbac.authorization.k8s.io/aggregate-to-view: "true", rbac.authorization.k8s.io/aggregate-to-edit: "true", rbac.authorization.k8s.io/aggregate-to-admin: "true"}}
rules:
- {apiGroups: [metrics.k8s.io], resources: [pods, nodes], verbs: [get, list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: system:metrics-server}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: system:metrics-server}
subjects: [{kind: ServiceAccount, name: metrics-server, namespace: kube-system}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: metrics-server:system:auth-delegator}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: system:auth-delegator}
subjects: [{kind: ServiceAccount, name: metrics-server, namespace: kube-system}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: metrics-server-auth-reader, namespace: kube-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: extension-apiserver-authentication-reader}
subjects: [{kind: ServiceAccount, name: metrics-server, namespace: kube-system}]
---
apiVersion: v1
kind: Service
metadata: {name: metrics-server, namespace: kube-system}
spec: {selector: {k8s-app: metrics-server}, ports: [{name: https, port: 443, targetPort: 10250}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: metrics-server, namespace: kube-system}
spec:
  selector: {matchLabels: {k8s-app: metrics-server}}
  template:
    metadata: {labels: {k8s-app: metrics-server}}
    spec:
      serviceAccountName: metrics-server
      priorityClassName: system-cluster-critical
      tolerations: [{operator: Exists}]
      containers:
      - name: metrics-server
        image: localhost/metrics-server:lab
        imagePullPolicy: Never
        args: [--cert-dir=/tmp, --secure-port=10250, --kubelet-preferred-address-types=InternalIP, --kubelet-use-node-status-port, --metric-resolution=10s, --kubelet-request-timeout=5s, --kubelet-insecure-tls]
        resources: {requests: {cpu: 20m, memory: 60Mi}}
        ports: [{name: https, containerPort: 10250}]
        readinessProbe: {httpGet: {path: /readyz, port: https, scheme: HTTPS}, periodSeconds: 3, initialDelaySeconds: 5}
        securityContext: {runAsNonRoot: true, runAsUser: 1000, readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}, seccompProfile: {type: RuntimeDefault}}
        volumeMounts: [{name: tmp, mountPath: /tmp}]
      volumes: [{name: tmp, emptyDir: {}}]
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1beta1.metrics.k8s.io}
spec: {service: {name: metrics-server, namespace: kube-system}, group: metrics.k8s.io, version: v1beta1, insecureSkipTLSVerify: true, groupPriorityMinimum: 100, versionPriority: 100}
EOF
fi
wait_for 180 "$NODES node(s)" nodes_ready
K -n kube-system rollout status deploy/coredns --timeout=180s --request-timeout=0 >/dev/null || die "coredns"
say "coredns ready; node up $((SECONDS-START)) s after start"
echo "KUBECONFIG=$KUBECONFIG"
