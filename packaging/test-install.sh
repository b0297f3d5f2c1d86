#!/usr/bin/env bash
# Installs what dist/ has into fresh roots of Debian, and lets it do the main job there:
#   packaging/test-install.sh [wheel|pythons|deb|rpm|unit|static|arm64 …]
# Needs root, mmdebstrap, and the network for packages of the model (scikit-learn).
set -euo pipefail
cd "$(dirname "$0")/.."
fail() { echo "test-install: $*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || fail "fresh roots need root"
cases=("$@")
[ ${#cases[@]} -gt 0 ] || cases=(wheel pythons deb rpm unit static arm64)
dist=${DIST:-dist}
machine=$(dpkg --print-architecture)
work=$(mktemp -d)
systemd='' groups=''
# finish ends what a case has left running.
finish() {
  [ -z "$systemd" ] || { kill -KILL "$systemd" && wait "$systemd"; } 2>/dev/null || true
  for _ in {1..50}; do # until the kernel has ended the processes in them
    [ -d "$groups" ] && ! find "$groups" -depth -type d -exec rmdir {} + 2>/dev/null || break
    sleep 0.1
  done
  rm -rf "$work"
}
trap finish EXIT
mkdir -p .cache/package

# one FILE: the only file of a pattern.
one() {
  local found=($1)
  [ ${#found[@]} = 1 ] && [ -e "${found[0]}" ] || fail "want one file $1, found ${found[*]}: make package"
  echo "${found[0]}"
}

# base NAME PACKAGES [SUITE [OPTIONS]]: the archive of a minimal Debian with packages, made once.
base() {
  local archive=.cache/package-$1.tar
  if [ ! -s "$archive" ]; then
    echo "test-install: making a minimal Debian with $2" >&2
    mmdebstrap --quiet --format=tar --variant=minbase --include="$2" --dpkgopt=force-unsafe-io --aptopt='Acquire::Languages "none"' "${@:4}" "${3:-bookworm}" "$archive.part" >&2
    mv "$archive.part" "$archive"
  fi
  echo "$archive"
}

# fresh NAME PACKAGES…: a new root in $root, as base makes it.
fresh() {
  local archive
  archive=$(base "$@")
  root=$work/$1-$RANDOM
  mkdir "$root"
  tar -C "$root" -xf "$archive" --exclude='./dev/*'
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
#   main_job.py [--folder FOLDER] PROGRAM…     FOLDER: one that "build" has written; else model.pkl beside this script is run
# CLIENT=python: an interpreter whose installed package has to get the same answers.
cat >"$work/main_job.py" <<'E2'
import json, os, re, subprocess, sys, time, urllib.error, urllib.request

here = os.path.dirname(os.path.abspath(__file__))
words = sys.argv[1:]
if words[0] == "--folder":
    words = words[2:] + ["inference", "--folder", words[1]]
    listeners = ("serve", "grpc", "admin")
else:
    words += ["run", here + "/model.pkl", "--json"]
    listeners = ("serve", "grpc", "api", "files", "admin")
for name in listeners:
    words += [f"--{name}-addr", "127.0.0.1:0"]
run = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
text = url = ""
for line in run.stdout:
    text += line
    found = re.search(r"http://\S+/serve/", text) if "inference" in words else re.search(r'"url": "([^"]+)"', text)
    if found:
        url = found[1] if "run" in words else found[0] + "model"
        break
else:
    sys.exit(f"main job: {words} ended: {text}")
want = json.load(open(here + "/expected.json"))
request = urllib.request.Request(url, json.dumps(want["rows"]).encode(), {"Content-Type": "application/json"})
end = time.monotonic() + 120
while True:
    try:
        got = json.load(urllib.request.urlopen(request, timeout=60))
        break
    except urllib.error.HTTPError as error:
        # A folder is loaded after the listeners are open; with the reason, it is not loaded.
        if "inference" not in words or error.code not in (404, 500, 503) or time.monotonic() > end:
            sys.exit(f"main job: {error}: {error.read().decode()}")
        time.sleep(0.1)
if got != want["answers"]:
    sys.exit(f"main job: {got}, want {want['answers']}")
if "CLIENT" in os.environ:
    code = "import json, sys; from clearml_serving_go import Client; print(json.dumps(Client(sys.argv[1]).predict('model', json.load(sys.stdin))))"
    client = [os.environ["CLIENT"], "-c", code, url.removesuffix("/serve/model")]
    got = json.loads(subprocess.run(client, input=json.dumps(want["rows"]), capture_output=True, text=True, check=True).stdout)
    if got != want["answers"]:
        sys.exit(f"main job: the client got {got}, want {want['answers']}")
run.terminate()
if run.wait(60) != 0:
    sys.exit(f"main job: ended with {run.returncode}")
print("answered as the model does")
E2
python=$PWD/.venv-package/bin/python
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
  local file name load times
  file=$(one "$dist/clearml_serving_go-*-manylinux_2_17_$(uname -m).*.whl") name=$(basename "$file")
  fresh python python3,python3-venv
  give
  cp "$file" "$root/tmp/"
  # The time of a machine that does much beside says little: there the processor's time is asked for alone.
  local TIMEFORMAT='%R %U %S'
  load=$(cut -d' ' -f1 /proc/loadavg)
  { time expect "answered as the model does" inside bash -c "python3 -m venv /opt/serving && /opt/serving/bin/pip install -q '/tmp/$name' && CLIENT=/opt/serving/bin/python python3 /tmp/main_job.py /opt/serving/bin/clearml-serving" 2>&3; } 3>&2 2>"$work/time"
  read -ra times <"$work/time"
  echo "test-install: wheel: from a bare Debian with Python to the first prediction in ${times[0]} s, ${times[1]} s user and ${times[2]} s system of the processor, with a load of $load on $(nproc) cores"
  awk -v wall="${times[0]}" -v user="${times[1]}" -v kernel="${times[2]}" -v load="$load" -v cores="$(nproc)" \
    'BEGIN { exit user + kernel > 60 || (wall > 60 && load < cores) }' || fail "wheel: the first prediction took more than 60 s"
  expect "clearml-serving" inside /opt/serving/bin/python -m clearml_serving_go version
  expect "usage" inside bash -c '/opt/serving/bin/python -m clearml_serving_go nonsense; [ $? = 2 ]'
  for path in man/man1/clearml-serving-run.1.gz bash-completion/completions/clearml-serving zsh/site-functions/_clearml-serving fish/vendor_completions.d/clearml-serving.fish; do
    [ -s "$root/opt/serving/share/$path" ] || fail "wheel: share/$path is missing"
  done
}

# The package under the oldest and the newest Python of a Debian, where the model's packages may not be had: code without any.
pythons() {
  local file suite
  file=$(one "$dist/clearml_serving_go-*-manylinux_2_17_$(uname -m).*.whl")
  for suite in bullseye trixie; do
    fresh "python-$suite" python3,python3-venv "$suite"
    cp "$file" "$root/tmp/"
    cat >"$root/tmp/total.py" <<'E2'
class Preprocess:
    def process(self, data, state, collect_custom_statistics_fn=None):
        return {"total": sum(data["x"])}
E2
    cat >"$root/tmp/ask.py" <<'E2'
import asyncio, json, subprocess, sys
from clearml_serving_go import AsyncClient, Client, NotFoundError, find_binary

words = [find_binary(), "run", "/tmp/total.py", "--json"]
for name in ("serve", "grpc", "api", "files", "admin"):
    words += ["--" + name + "-addr", "127.0.0.1:0"]
run = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
text = ""
for line in run.stdout:
    text += line
    try:
        url = json.loads(text)["url"]
        break
    except ValueError:
        pass
url = url[: url.index("/serve/")]
with Client(url) as client:
    assert client.predict("total", {"x": [1, 2, 3]}) == {"total": 6}
    assert client.ready("total") and [e["name"] for e in client.endpoints()] == ["total"]
    try:
        client.predict("nothing", {})
        sys.exit("no error")
    except NotFoundError as error:
        assert error.status == 404

async def ask():
    async with AsyncClient(url) as client:
        got = await asyncio.gather(*(client.predict("total", {"x": [i, 1]}) for i in range(20)))
        assert got == [{"total": i + 1} for i in range(20)]

asyncio.run(ask())
run.terminate()
assert run.wait(60) == 0
print("the client works with Python %d.%d" % sys.version_info[:2])
E2
    expect "the client works" inside bash -c "python3 -m venv /opt/serving && /opt/serving/bin/pip install -q /tmp/*.whl && /opt/serving/bin/python /tmp/ask.py"
    echo "test-install: pythons: the client works with $(inside python3 -V) of Debian $suite"
  done
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

# The account and the settings of the unit.
as="runuser -u clearml-serving -- env HOME=/var/lib/clearml-serving CLEARML_SERVING_HOME=/var/lib/clearml-serving CLEARML_SERVING_CONFIG=/etc/clearml-serving/serving.conf"

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
    [ -s "$root$path" ] || fail "deb: $path is missing"
  done
  expect "complete -" inside bash -c 'source /usr/share/bash-completion/completions/clearml-serving && complete -p clearml-serving'

  # The main job under the account.
  expect "answered as the model does" inside bash -c "cd /var/lib/clearml-serving && $as python3 /tmp/main_job.py clearml-serving"

  # An upgrade keeps data and settings.
  inside bash -c "echo 'log_format = \"json\"' >>/etc/clearml-serving/serving.conf; $as touch /var/lib/clearml-serving/kept"
  expect "Unpacking clearml-serving (99.0-1)" inside env DEBIAN_FRONTEND=noninteractive dpkg -i /tmp/next.deb
  expect 'log_format = "json"' inside cat /etc/clearml-serving/serving.conf
  expect "clearml-serving" inside stat -c %U /var/lib/clearml-serving/kept

  # A removal keeps them too; a purge does not.
  expect "" inside dpkg -r clearml-serving
  [ -e "$root/var/lib/clearml-serving/kept" ] && [ -e "$root/etc/clearml-serving/serving.conf" ] || fail "deb: a removal has removed data or settings"
  expect "" inside dpkg -P clearml-serving
  [ ! -e "$root/var/lib/clearml-serving" ] && [ ! -e "$root/etc/clearml-serving/serving.conf" ] || fail "deb: a purge has left data or settings"
  echo "test-install: deb: installed, served, upgraded, removed, purged"
}

rpm_case() {
  local file
  file=$(one "$dist/clearml-serving-*.$(uname -m).rpm")
  fresh python python3,python3-venv
  give
  rpm --root "$root" --initdb
  # What the package needs comes from Debian here. A package that is empty tells RPM so, which then resolves the dependencies.
  cat >"$work/debian.spec" <<'E2'
Name: debian
Version: 12
Release: 1
Summary: What Debian gives
License: none
BuildArch: noarch
Provides: /bin/sh glibc shadow-utils
%description
%files
E2
  rpmbuild --quiet -bb --define "_topdir $work/rpm" "$work/debian.spec"
  if rpm --root "$root" --test -i "$file" 2>"$work/needs"; then fail "rpm: the package needs nothing"; fi
  expect "" rpm --root "$root" -i "$work/rpm/RPMS/noarch/debian-12-1.noarch.rpm"
  expect "systemctl enable" rpm --root "$root" -i "$file"
  expect "clearml-serving" inside id clearml-serving
  expect "" rpm --root "$root" -V --nouser --nogroup --nomode clearml-serving
  expect "/etc/clearml-serving/serving.conf" rpm --root "$root" -qc clearml-serving
  expect "answered as the model does" inside bash -c "cd /var/lib/clearml-serving && $as python3 /tmp/main_job.py clearml-serving"
  echo '# mine' >>"$root/etc/clearml-serving/serving.conf"
  touch "$root/var/lib/clearml-serving/kept"
  expect "" rpm --root "$root" -U --force "$file"
  expect "# mine" cat "$root/etc/clearml-serving/serving.conf"
  expect "" rpm --root "$root" -e clearml-serving
  [ -e "$root/var/lib/clearml-serving/kept" ] && [ -e "$root/etc/clearml-serving/serving.conf.rpmsave" ] || fail "rpm: a removal has removed data or settings"
  echo "test-install: rpm: installed, served, upgraded, removed"
}

# boot starts systemd as the first process of $root, in namespaces of its own and without a network; booted COMMAND… runs there.
boot() {
  local mounted
  mounted=$(findmnt --first-only -n -o TARGET -t cgroup2) || mounted=''
  [ -n "$mounted" ] || fail "unit: systemd needs control groups of version 2, which are not mounted here"
  groups=$mounted/clearml-serving-test-$$
  mkdir -p "$groups"
  bash -c '
    echo $$ >"$2/cgroup.procs"
    exec unshare --mount --uts --ipc --net --cgroup --pid --fork --kill-child --propagation private bash -c "
      set -e
      mount --bind \"\$1\" \"\$1\"
      cd \"\$1\"
      mount -t proc proc proc
      mount -t sysfs sysfs sys
      mount -t cgroup2 cgroup2 sys/fs/cgroup
      mount -t tmpfs tmpfs run
      mount -t tmpfs tmpfs dev
      mkdir dev/shm dev/pts
      chmod 1777 dev/shm
      for device in null zero full random urandom tty; do touch dev/\$device; mount --bind /dev/\$device dev/\$device; done
      ln -s pts/ptmx dev/ptmx
      ln -s /proc/self/fd dev/fd
      hostname fresh
      ip link set lo up
      mkdir -p old
      pivot_root . old
      umount -l /old
      exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 /lib/systemd/systemd --log-target=console --show-status=no
    " boot "$1"' boot "$root" "$groups" </dev/null >"$work/systemd" 2>&1 &
  systemd=$!
  expect "active" until_it booted systemctl is-active multi-user.target
}
booted() {
  local init
  init=$(cat "/proc/$systemd/task/$systemd/children") && [ -n "$init" ] &&
    nsenter -t "${init%% *}" -m -u -i -n -C -p -r -w env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 "$@"
}
# halt ends systemd as a machine that is switched off does.
halt() {
  booted systemctl poweroff >/dev/null 2>&1 || true
  for _ in {1..600}; do
    [ -d "/proc/$systemd" ] || break
    sleep 0.1
  done
  [ ! -d "/proc/$systemd" ] || fail "unit: systemd does not end: $(tail -5 "$work/systemd")"
  wait "$systemd" || true
  systemd=''
}
until_it() { # COMMAND…: until it succeeds, for minutes
  local out
  for _ in {1..600}; do
    if out=$("$@" 2>&1); then
      echo "$out"
      return
    fi
    sleep 0.2
  done
  echo "$out" >&2
  return 1
}

# The unit with all its hardening, under a real systemd.
unit() {
  local file pids pid before
  file=$(one "$dist/clearml-serving_*_$machine.deb")
  fresh systemd python3,python3-venv,systemd,dbus
  give
  cp "$file" "$root/tmp/first.deb"
  cp "$(with_version "$file" 99.0-1)" "$root/tmp/next.deb"
  # In /root, for systemd empties /tmp.
  mkdir "$root/root/job"
  mv "$root"/tmp/* "$root/root/job/"
  chmod 755 "$root/root" "$root/root/job"
  cat >"$root/root/job/ask.py" <<'E2'
import json, urllib.request
want = json.load(open("/root/job/expected.json"))
request = urllib.request.Request("http://127.0.0.1:8080/serve/iris", json.dumps(want["rows"]).encode(), {"Content-Type": "application/json"})
got = json.load(urllib.request.urlopen(request, timeout=60))
assert got == want["answers"], got
print("answered as the model does")
E2
  local answers="expect answered until_it booted python3 /root/job/ask.py" main="booted systemctl show --property MainPID --value clearml-serving@up"
  # There is no network once systemd runs.
  expect "" inside bash -c "python3 -m venv /opt/models && /opt/models/bin/pip install -q scikit-learn joblib"
  boot
  expect "systemctl enable --now clearml-serving@up" booted dpkg -i /root/job/first.deb
  expect "inactive" bash -c "$(declare -f booted); systemd=$systemd; booted systemctl is-active clearml-serving@up || true"
  booted bash -c 'echo "python = \"/opt/models/bin/python\"" >>/etc/clearml-serving/serving.conf; echo CLEARML_SERVING_LOG_FORMAT=json >/etc/clearml-serving/up.env'
  expect "" booted systemctl enable --now clearml-serving@up
  expect "" until_it booted bash -c "cd /var/lib/clearml-serving && $as clearml-serving create --name fresh"
  expect "" booted bash -c "cd /var/lib/clearml-serving && $as clearml-serving model upload --name iris --project fresh --framework scikitlearn --path /root/job/model.pkl"
  expect "" booted bash -c "cd /var/lib/clearml-serving && $as clearml-serving model add --engine sklearn --endpoint iris --name iris --project fresh --wait"
  $answers
  expect '"msg":' booted journalctl -u clearml-serving@up -o cat # as up.env says

  # Each process of the unit, those that run models too, is as the unit says.
  pids=$(booted bash -c 'cat /sys/fs/cgroup/system.slice/system-clearml*/clearml-serving@up.service/cgroup.procs')
  [ "$(wc -w <<<"$pids")" -ge 2 ] || fail "unit: the model has no process"
  for pid in $pids; do
    expect "CapBnd: 0000000000000000 NoNewPrivs: 1 Seccomp: 2" booted bash -c "echo \$(grep -E '^(CapBnd|NoNewPrivs|Seccomp):' /proc/$pid/status)"
    expect "Read-only file system" booted bash -c "touch /proc/$pid/root/etc/x 2>&1 || true"
    expect "" booted bash -c "[ -z \"\$(ls -A /proc/$pid/root/root)\" ]"
  done

  # One that is killed, a restart, an upgrade, and a machine that is switched off and on: it serves again.
  before=$($main)
  booted bash -c "kill -KILL $before"
  expect "" until_it booted bash -c "[ \$(systemctl show --property MainPID --value clearml-serving@up) -gt 0 ] && [ \$(systemctl show --property NRestarts --value clearml-serving@up) = 1 ]"
  $answers
  before=$($main)
  expect "" booted systemctl restart clearml-serving@up
  [ "$($main)" != "$before" ] || fail "unit: systemctl restart has restarted nothing"
  $answers
  before=$($main)
  expect "Unpacking clearml-serving (99.0-1)" booted env DEBIAN_FRONTEND=noninteractive dpkg -i /root/job/next.deb
  [ "$($main)" != "$before" ] || fail "unit: an upgrade has restarted nothing"
  $answers
  expect '/opt/models' cat "$root/etc/clearml-serving/serving.conf"
  halt
  boot
  $answers
  expect "" booted dpkg -r clearml-serving
  expect "" booted bash -c '! systemctl is-active clearml-serving@up && [ ! -e /etc/systemd/system/multi-user.target.wants/clearml-serving@up.service ] && [ -e /var/lib/clearml-serving/clearml.db ]'
  halt
  echo "test-install: unit: served under systemd with its hardening, after a kill, a restart, an upgrade, and a new start of the machine; removed"
}

# extracted FILE FOLDER: the program of a wheel, as pip installs it on the platform in the wheel's name.
extracted() {
  local platform=${1##*-}
  platform=${platform%.whl}
  [ -d "$work/pip" ] || python3 -m venv "$work/pip"
  "$work/pip/bin/python" -m pip install -q --no-index --no-deps --only-binary=:all: --platform "${platform%%.*}" --target "$2" "$1" >&2
  echo "$2/bin/clearml-serving"
}

# The static program serves what it computes itself with nothing beside it, and other models with the Python of a system.
static() {
  local wheel program
  wheel=$(one "$dist/clearml_serving_go-*-musllinux_1_2_$(uname -m).whl")
  program=$(extracted "$wheel" "$work/static")
  root=$work/empty
  mkdir -p "$root/tmp" "$root/proc"
  cp "$program" "$root/"
  expect "clearml-serving" chroot "$root" /clearml-serving version
  folder "$program"
  cp -r "$work/folder/serving" "$root/serving"
  expect "answered as the model does" env CLEARML_SERVING_HOME=/tmp/home "$python" "$work/main_job.py" --folder /serving \
    unshare --mount --propagation private bash -c 'mount -t proc proc "$0/proc" && exec chroot "$0" /clearml-serving "$@"' "$root"
  fresh python python3,python3-venv
  give
  cp "$program" "$root/usr/local/bin/"
  expect "answered as the model does" inside python3 /tmp/main_job.py clearml-serving
  echo "test-install: static: served a forest in a root with nothing but /proc, and with the Python of Debian"
}

# folder PROGRAM…: the model for the program to compute itself, in $work/folder, compared with the library by it.
folder() {
  rm -rf "$work/folder" "$work/home"
  expect "serves model" env CLEARML_SERVING_HOME="$work/home" CLEARML_SERVING_PYTHON="$python" "$@" build "$work/model.pkl" --native --output "$work/folder"
  expect "model: ready" env CLEARML_SERVING_HOME="$work/home" CLEARML_SERVING_PYTHON="$python" "$@" inference --folder "$work/folder/serving" --check
}

# The programs for ARM64 on another machine, in QEMU, with the Python of this machine.
arm64() {
  local wheel home="CLEARML_SERVING_HOME=$work/arm64-home CLEARML_SERVING_PYTHON=$python" emulated
  [ "$(uname -m)" != aarch64 ] || { echo "test-install: arm64: not run, this machine is one: the other cases are it"; return; }
  wheel=$(one "$dist/clearml_serving_go-*-manylinux_2_17_aarch64.*.whl")
  fresh arm64 libc6 bookworm --architectures=arm64 --variant=extract # nothing of it runs while it is made
  emulated="qemu-aarch64-static -L $root $(extracted "$wheel" "$work/arm64")"
  expect "linux/arm64" $emulated version
  expect "answered as the model does" env $home "$python" "$work/main_job.py" $emulated
  wheel=$(one "$dist/clearml_serving_go-*-musllinux_1_2_aarch64.whl")
  emulated="qemu-aarch64-static $(extracted "$wheel" "$work/arm64-static")"
  expect "linux/arm64" $emulated version
  folder $emulated
  expect "answered as the model does" env $home "$python" "$work/main_job.py" --folder "$work/folder/serving" $emulated
  echo "test-install: arm64: both programs served a forest in QEMU"
}

for name in "${cases[@]}"; do
  case $name in
  wheel | pythons | deb | unit | static | arm64) "$name" ;;
  rpm) rpm_case ;;
  *) echo "test-install: unknown case $name: wheel, pythons, deb, rpm, unit, static or arm64" >&2; exit 2 ;;
  esac
done
