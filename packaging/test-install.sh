#!/usr/bin/env bash
# Installs what dist/ has into fresh roots of Debian, and lets it do the main job there:
#   packaging/test-install.sh [wheel|deb|rpm|static …]
# Needs root, mmdebstrap, and the network for packages of the model (scikit-learn).
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "test-install: fresh roots need root" >&2; exit 1; }
cases=("$@")
[ ${#cases[@]} -gt 0 ] || cases=(wheel deb rpm static)
dist=${DIST:-dist}
machine=$(dpkg --print-architecture)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p .cache/package

# one FILE: the only file of a pattern.
one() {
  local found=($1)
  [ ${#found[@]} = 1 ] && [ -e "${found[0]}" ] || { echo "test-install: want one file $1, found ${found[*]}: make package" >&2; exit 1; }
  echo "${found[0]}"
}

# base NAME PACKAGES: the archive of a minimal Debian with packages, made once.
base() {
  local archive=.cache/package-$1.tar
  if [ ! -s "$archive" ]; then
    echo "test-install: making a minimal Debian with ${2:-nothing else}" >&2
    mmdebstrap --quiet --format=tar --variant=minbase --include="$2" --dpkgopt=force-unsafe-io --aptopt='Acquire::Languages "none"' bookworm "$archive.part" >&2
    mv "$archive.part" "$archive"
  fi
  echo "$archive"
}

# fresh NAME PACKAGES: a new root in $root.
fresh() {
  root=$work/$1-$RANDOM
  mkdir "$root"
  tar -C "$root" -xf "$(base "$1" "$2")" --exclude='./dev/*'
  cp /etc/resolv.conf "$root/etc/resolv.conf"
  # The authorities and the index that this machine uses for pip.
  mkdir -p "$root/etc/ssl/certs"
  cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
  [ ! -f /etc/pip.conf ] || cp /etc/pip.conf "$root/etc/pip.conf"
}

# inside COMMAND…: runs it in $root, with processes and devices of its own. What it leaves running ends with it.
inside() {
  unshare --mount --pid --fork --kill-child --propagation private bash -c '
    root=$1; shift
    mount -t proc proc "$root/proc"
    mount -t tmpfs tmpfs "$root/dev"; mkdir "$root/dev/shm"; chmod 1777 "$root/dev/shm"
    for device in null zero full random urandom; do touch "$root/dev/$device"; mount --bind "/dev/$device" "$root/dev/$device"; done
    ln -s /proc/self/fd "$root/dev/fd"; ln -s fd/0 "$root/dev/stdin"; ln -s fd/1 "$root/dev/stdout"; ln -s fd/2 "$root/dev/stderr"
    exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 HOME=/root \
      ${https_proxy:+https_proxy="$https_proxy"} ${PIP_INDEX_URL:+PIP_INDEX_URL="$PIP_INDEX_URL"} PIP_CERT=/etc/ssl/certs/ca-certificates.crt \
      chroot "$root" "$@"' inside "$root" "$@"
}

expect() { # TEXT COMMAND…: the output of the command has the text
  local text=$1 out
  shift
  out=$("$@" 2>&1) || { printf 'test-install: failed: %s\n%s\n' "$*" "$out" >&2; exit 1; }
  [[ $out == *"$text"* ]] || { printf 'test-install: %s: want %q, got\n%s\n' "$*" "$text" "$out" >&2; exit 1; }
}

# The main job: a model file becomes an endpoint, and the endpoint answers as the model does. Standard library only.
cat >"$work/main_job.py" <<'E2'
import json, os, subprocess, sys, time, urllib.request

words = sys.argv[1:] + ["run", "/tmp/model.pkl", "--json"]
for name in ("serve", "grpc", "api", "files", "admin"):
    words += [f"--{name}-addr", "127.0.0.1:0"]
run = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
text = ""
for line in run.stdout:
    text += line
    try:
        told = json.loads(text)
        break
    except ValueError:
        pass
else:
    sys.exit(f"main job: {words} ended: {text}")
if "url" not in told:
    sys.exit(f"main job: {told}")
want = json.load(open("/tmp/expected.json"))
request = urllib.request.Request(told["url"], json.dumps(want["rows"]).encode(), {"Content-Type": "application/json"})
got = json.load(urllib.request.urlopen(request, timeout=60))
if got != want["answers"]:
    sys.exit(f"main job: {got}, want {want['answers']}")
run.terminate()
if run.wait(60) != 0:
    sys.exit(f"main job: ended with {run.returncode}")
print("answered as the model does")
E2
# A model of 100 trees that was trained elsewhere.
.venv-package/bin/python - "$work" <<'E2'
import json, pickle, sys
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
x, y = load_iris(return_X_y=True)
model = RandomForestClassifier(100, random_state=0).fit(x, y)
pickle.dump(model, open(sys.argv[1] + "/model.pkl", "wb"))
json.dump({"rows": x[::10].tolist(), "answers": model.predict(x[::10]).tolist()}, open(sys.argv[1] + "/expected.json", "w"))
E2
give() { cp "$work/model.pkl" "$work/expected.json" "$work/main_job.py" "$root/tmp/"; }

wheel() {
  local file name load
  file=$(one "$dist/clearml_serving_go-*-manylinux_2_17_$(uname -m).*.whl") name=$(basename "$file")
  fresh python python3,python3-venv
  give
  cp "$file" "$root/tmp/"
  # The time of a machine that does much beside says little: the processor's time is told too.
  local TIMEFORMAT='%R s, %U s user and %S s system of the processor'
  load=$(cut -d' ' -f1 /proc/loadavg)
  { time expect "answered as the model does" inside bash -c "python3 -m venv /opt/serving && /opt/serving/bin/pip install -q '/tmp/$name' && python3 /tmp/main_job.py /opt/serving/bin/clearml-serving" 2>&3; } 3>&2 2>"$work/time"
  echo "test-install: wheel: from a bare Debian with Python to the first prediction in $(cat "$work/time"), with a load of $load on $(nproc) cores"
  expect "clearml-serving" inside /opt/serving/bin/python -m clearml_serving_go version
  expect "usage" inside bash -c '/opt/serving/bin/python -m clearml_serving_go nonsense; [ $? = 2 ]'
}

# with_version DEB VERSION: the same package of another version.
with_version() {
  local tree=$work/repack
  rm -rf "$tree"
  dpkg-deb -R "$1" "$tree"
  sed -i "s/^Version: .*/Version: $2/" "$tree/DEBIAN/control"
  dpkg-deb -Zgzip -z1 -b "$tree" "$work/clearml-serving_$2.deb" >&2
  echo "$work/clearml-serving_$2.deb"
}

deb() {
  local file
  file=$(one "$dist/clearml-serving_*_$machine.deb")
  fresh python python3,python3-venv
  give
  cp "$file" "$root/tmp/first.deb"
  cp "$(with_version "$file" 99.0-1)" "$root/tmp/next.deb"
  expect "systemctl enable --now clearml-serving@up" inside dpkg -i /tmp/first.deb
  expect "clearml-serving" inside id clearml-serving
  expect "drwxr-x--- clearml-serving" inside stat -c '%A %U' /var/lib/clearml-serving
  expect "root clearml-serving 640" inside stat -c '%U %G %a' /etc/clearml-serving/serving.conf
  for path in /usr/share/man/man1/clearml-serving-run.1.gz /usr/share/bash-completion/completions/clearml-serving \
    /usr/share/zsh/vendor-completions/_clearml-serving /usr/share/fish/vendor_completions.d/clearml-serving.fish /usr/share/doc/clearml-serving/copyright; do
    expect "" inside dpkg -V clearml-serving
    [ -s "$root$path" ] || { echo "test-install: deb: $path is missing" >&2; exit 1; }
  done
  expect "complete -" inside bash -c 'source /usr/share/bash-completion/completions/clearml-serving && complete -p clearml-serving'

  # The main job under the account and the settings of the unit.
  local as="runuser -u clearml-serving -- env HOME=/var/lib/clearml-serving CLEARML_SERVING_HOME=/var/lib/clearml-serving CLEARML_SERVING_CONFIG=/etc/clearml-serving/serving.conf"
  expect "answered as the model does" inside bash -c "cd /var/lib/clearml-serving && $as python3 /tmp/main_job.py clearml-serving"

  # An upgrade keeps data and settings.
  inside bash -c "echo 'log_format = \"json\"' >>/etc/clearml-serving/serving.conf; $as touch /var/lib/clearml-serving/kept"
  expect "Unpacking clearml-serving (99.0-1)" inside env DEBIAN_FRONTEND=noninteractive dpkg -i /tmp/next.deb
  expect 'log_format = "json"' inside cat /etc/clearml-serving/serving.conf
  expect "clearml-serving" inside stat -c %U /var/lib/clearml-serving/kept

  # A removal keeps them too; a purge does not.
  expect "" inside dpkg -r clearml-serving
  [ -e "$root/var/lib/clearml-serving/kept" ] && [ -e "$root/etc/clearml-serving/serving.conf" ] || { echo "test-install: deb: a removal has removed data or settings" >&2; exit 1; }
  expect "" inside dpkg -P clearml-serving
  [ ! -e "$root/var/lib/clearml-serving" ] && [ ! -e "$root/etc/clearml-serving/serving.conf" ] || { echo "test-install: deb: a purge has left data or settings" >&2; exit 1; }
  echo "test-install: deb: installed, served, upgraded, removed, purged"
}

rpm_case() {
  local file
  file=$(one "$dist/clearml-serving-*.$(uname -m).rpm")
  fresh python python3,python3-venv
  give
  rpm --root "$root" --initdb
  # The libraries come from Debian here, of which RPM knows nothing.
  expect "systemctl enable" rpm --root "$root" --nodeps -i "$file"
  expect "clearml-serving" inside id clearml-serving
  expect "" rpm --root "$root" -V --nodeps --nouser --nogroup --nomode clearml-serving
  expect "/etc/clearml-serving/serving.conf" rpm --root "$root" -qc clearml-serving
  local as="runuser -u clearml-serving -- env HOME=/var/lib/clearml-serving CLEARML_SERVING_HOME=/var/lib/clearml-serving CLEARML_SERVING_CONFIG=/etc/clearml-serving/serving.conf"
  expect "answered as the model does" inside bash -c "cd /var/lib/clearml-serving && $as python3 /tmp/main_job.py clearml-serving"
  echo '# mine' >>"$root/etc/clearml-serving/serving.conf"
  touch "$root/var/lib/clearml-serving/kept"
  expect "" rpm --root "$root" --nodeps -U --force "$file"
  expect "# mine" cat "$root/etc/clearml-serving/serving.conf"
  expect "" rpm --root "$root" -e clearml-serving
  [ -e "$root/var/lib/clearml-serving/kept" ] && [ -e "$root/etc/clearml-serving/serving.conf.rpmsave" ] || { echo "test-install: rpm: a removal has removed data or settings" >&2; exit 1; }
  echo "test-install: rpm: installed, served, upgraded, removed"
}

# The static program needs nothing at all.
static() {
  local wheel
  wheel=$(one "$dist/clearml_serving_go-*-musllinux_1_2_$(uname -m).whl")
  root=$work/empty
  mkdir -p "$root"
  python3 -m zipfile -e "$wheel" "$work/static"
  cp "$work"/static/*.data/scripts/clearml-serving "$root/"
  chmod +x "$root/clearml-serving"
  expect "clearml-serving" chroot "$root" /clearml-serving version
  echo "test-install: static: runs in an empty root"
}

for name in "${cases[@]}"; do
  case $name in
  wheel | deb | static) "$name" ;;
  rpm) rpm_case ;;
  *) echo "test-install: unknown case $name: wheel, deb, rpm or static" >&2; exit 2 ;;
  esac
done
