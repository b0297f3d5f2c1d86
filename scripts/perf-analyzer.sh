#!/usr/bin/env bash
# Installs NVIDIA's perf_analyzer into .cache/perf-analyzer, and prints the command that starts it. Its
# program needs a newer C library than Debian 12 has, so the libraries of Debian 13 are kept beside it, from
# the machine's own Debian mirror; nothing of the system is changed.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$1
home=$PWD/.cache/perf-analyzer-$version

if ! test -f "$home/.made"; then
  test "$(uname -sm)" = "Linux x86_64" || { echo "perf-analyzer: exists for Linux on x86_64 only" >&2; exit 1; }
  echo "perf-analyzer: $version with the libraries of Debian 13" >&2
  rm -rf "$home"
  mkdir -p "$home"/{etc,lists/partial,cache/archives/partial}
  python=$(scripts/python-find.sh)
  "$python" -m venv "$home/venv"
  "$home/venv/bin/python" -m pip download --quiet --disable-pip-version-check --no-deps --python-version 312 --only-binary=:all: \
    --platform manylinux_2_38_x86_64 -d "$home/wheel" "perf-analyzer==$version"
  "$python" -m zipfile -e "$home"/wheel/perf_analyzer-*.whl "$home/package"
  chmod +x "$home/package/perf_analyzer/bin/perf_analyzer"
  # The first mirror of Debian that this machine uses, of either form of apt's configuration.
  mirror=$({ cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null || true; } | grep -v '^[[:space:]]*#' | grep -oE 'https?://[^ ]+/debian/?( |$)' | sed -n 1p | tr -d ' ')
  key=$(find /usr/share/keyrings -name 'debian-archive-keyring.*' | sed -n 1p)
  test -n "$mirror" && test -n "$key" || { echo "perf-analyzer: this machine has no mirror of Debian in its apt configuration" >&2; exit 1; }
  echo "deb [signed-by=$key] $mirror trixie main" >"$home/etc/sources.list"
  apt=(apt-get -o "Dir::Etc::sourcelist=$home/etc/sources.list" -o Dir::Etc::sourceparts=/dev/null -o "Dir::State::lists=$home/lists"
    -o "Dir::Cache=$home/cache" -o Dir::State::status=/dev/null -o APT::Sandbox::User=root)
  "${apt[@]}" update -qq >&2
  (cd "$home/cache" && "${apt[@]}" download -qq libc6 libstdc++6 libgcc-s1 libssl3t64 zlib1g libzstd1 >&2 && for package in *.deb; do dpkg -x "$package" "$home/root"; done)
  touch "$home/.made"
fi
libraries=$(dirname "$(find "$home/root" -name libc.so.6 -print -quit)")
echo "$libraries/ld-linux-x86-64.so.2 --library-path $libraries $home/package/perf_analyzer/bin/perf_analyzer"
