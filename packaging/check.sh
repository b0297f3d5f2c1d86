#!/usr/bin/env bash
# Checks what packaging/build.sh has put into dist/:
#   packaging/check.sh VERSION TOOLS-FOLDER [AGAIN]
# AGAIN: "no" leaves out the second build.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$1 tools=$2 again=${3:-yes}
fail() { echo "check: $*" >&2; exit 1; }
trap 'echo "check: line $LINENO failed: $BASH_COMMAND" >&2' ERR
# found PATTERN: what fits, and no failure if nothing does. It reads to the end, unlike grep -q, which fails the program before it.
found() { grep -o "$1" || [ $? = 1 ]; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
shopt -s nullglob

(cd dist && sha256sum --quiet -c clearml-serving_*_checksums.txt)

wheels=(dist/*.whl)
[ ${#wheels[@]} = 6 ] || fail "want 6 wheels in dist/, found ${#wheels[@]}"
.venv-package/bin/python -m twine check --strict "${wheels[@]}"
.venv-package/bin/check-wheel-contents "${wheels[@]}"
for wheel in "${wheels[@]}"; do
  [ "$(stat -c %s "$wheel")" -le 25000000 ] || fail "$wheel has more than 25 MB"
  tree=$work/$(basename "$wheel")
  python3 -m zipfile -e "$wheel" "$tree"
  program=$(echo "$tree"/*.data/scripts/clearml-serving)
  python3 - "$tree" <<'E2' || fail "$wheel: the list of components does not name what the program has"
import glob, json, sys
components = json.load(open(glob.glob(sys.argv[1] + "/*.dist-info/sboms/*.json")[0]))["components"]
assert any(c["name"] == "github.com/spf13/cobra" and c.get("hashes") for c in components), len(components)
E2
  case $wheel in
  *manylinux*) # no symbol of a C library that is newer than the tag says
    newest=$(readelf -W --dyn-syms "$program" | found '@GLIBC_[0-9.]*' | sort -uV | tail -1 | sed 's/@GLIBC_//')
    [ "$(printf '%s\n' "${newest:-2.0}" 2.17 | sort -V | tail -1)" = 2.17 ] || fail "$wheel asks for glibc $newest, its tag says 2.17"
    needs=$(readelf -d "$program" | found 'Shared library: .*' | tr '\n' ' ')
    [ -z "$(sed 's/Shared library: \[lib\(c\|dl\|pthread\)\.so\.[0-9]\] *//g' <<<"$needs")" ] || fail "$wheel needs more than glibc: $needs"
    ;;
  *musllinux*)
    [ -z "$(readelf -lW "$program" | found INTERP)" ] || fail "$wheel: the program is not static"
    ;;
  esac
done

for deb in dist/*.deb; do
  # initial-upload-closes-no-bugs: this is no upload to Debian. hardening-no-*: what Go links, as in Debian's own Go packages.
  # unknown-field: Architecture-Variant, which lintian does not know yet.
  lintian --no-cfg --allow-root --fail-on error,warning --suppress-tags initial-upload-closes-no-bugs,hardening-no-pie,hardening-no-relro,unknown-field "$deb" ||
    fail "lintian finds faults in $deb"
done
for rpm in dist/*.rpm; do
  [ -n "$(rpm -qpl "$rpm" | found '^/usr/lib/systemd/system/clearml-serving@.service$')" ] || fail "$rpm has no unit"
  [ -n "$(rpm -qpc "$rpm" | found '^/etc/clearml-serving/serving.conf$')" ] || fail "$rpm: the settings are not marked as such"
done

# The unit as it is installed: known settings only, and little exposure. The program need not be here for that.
root=$work/deb
dpkg-deb -x "$(echo dist/clearml-serving_*_"$(dpkg --print-architecture)".deb)" "$root"
unit=$work/clearml-serving@up.service
sed "s#^ExecStart=/usr/bin/#ExecStart=$root/usr/bin/#; s/%i/up/g" "$root/usr/lib/systemd/system/clearml-serving@.service" >"$unit"
found=$(systemd-analyze verify --man=no --recursive-errors=no "$unit" 2>&1 | grep -F "$unit" || true)
[ -z "$found" ] || fail "systemd-analyze verify: $found"
systemd-analyze security --offline=true --threshold=25 --no-pager "$unit" >"$work/security" || { cat "$work/security" >&2; fail "the unit is more exposed than 2.5"; }
tail -1 "$work/security"

for page in "$root"/usr/share/man/man1/*.gz; do
  said=$(LC_ALL=C.UTF-8 MANWIDTH=100 man --warnings -l "$page" 2>&1 >/dev/null)
  [ -z "$said" ] || fail "$(basename "$page"): $said"
done
for script in packaging/linux/{postinst,prerm,postrm}; do sh -n "$script"; done

if [ "$again" != no ]; then
  # The same commit in another folder.
  git clone -q --no-hardlinks . "$work/clone"
  (cd "$work/clone" && packaging/build.sh "$version" "$tools" >"$work/log" 2>&1) || { cat "$work/log" >&2; fail "the second build failed"; }
  for file in dist/*.{tar.gz,whl,deb,rpm,cdx.json} dist/*_checksums.txt; do
    cmp "$file" "$work/clone/$file" || fail "the second build has another $file"
  done
  echo "check: a second build in another folder has the same bytes"
fi
echo "check: passed"
