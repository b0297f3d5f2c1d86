#!/usr/bin/env bash
# Checks what packaging/build.sh has put into dist/:
#   packaging/check.sh VERSION TOOLS-FOLDER [AGAIN]
# AGAIN: "no" leaves out the second build. HOST=1: what build.sh makes with that.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$1 tools=$2 again=${3:-yes}
fail() { echo "check: $*" >&2; exit 1; }
trap 'echo "check: line $LINENO failed: $BASH_COMMAND" >&2' ERR
# found PATTERN: what fits, and no failure if nothing does. It reads to the end, unlike grep -q, which fails the program before it.
found() { grep -o "$1" || [ $? = 1 ]; }
# has FILE LIST PATH…: the list of what the file holds names each path.
has() {
  local file=$1 list=$2 path
  shift 2
  for path; do [[ $'\n'$list$'\n' == *$'\n'"$path"$'\n'* ]] || fail "$file has no $path"; done
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# What there must be: each pattern is one file, and there are no others. deb, RPM and wheels write a version in their own ways.
number=${version#v} machine=$(go env GOARCH)
machines=(amd64 arm64) darwin=yes
[ -z "${HOST:-}" ] || machines=("$machine") darwin=
want=("clearml-serving_${number}_checksums.txt" "clearml-serving-go-[0-9]*.tgz")
for arch in "${machines[@]}"; do
  case $arch in
  amd64) cpu=x86_64 mac=x86_64 ;;
  arm64) cpu=aarch64 mac=arm64 ;;
  *) fail "nothing is released for $arch" ;;
  esac
  want+=("clearml-serving_${number}_linux_$arch"{,_static}.{tar.gz,cdx.json} "clearml-serving_[0-9]*_$arch.deb" "clearml-serving-[0-9]*.$cpu.rpm")
  want+=("clearml_serving_go-*-manylinux_2_17_$cpu.manylinux2014_$cpu.whl" "clearml_serving_go-*-musllinux_1_2_$cpu.whl")
  [ -z "$darwin" ] || want+=("clearml-serving_${number}_darwin_$arch".{tar.gz,cdx.json} "clearml_serving_go-*-macosx_12_0_$mac.whl")
done
files=()
for pattern in "${want[@]}"; do
  mapfile -t fit < <(compgen -G "dist/$pattern")
  [ ${#fit[@]} = 1 ] || fail "want one file dist/$pattern, found ${fit[*]:-none}: make package"
  files+=("${fit[0]}")
done
# What goreleaser writes for itself is not released.
others=$(find dist -maxdepth 1 -type f ! -name artifacts.json ! -name config.yaml ! -name metadata.json | sort | comm -23 - <(printf '%s\n' "${files[@]}" | sort))
[ -z "$others" ] || fail "dist/ has more than what is released: $others"

checksums=dist/clearml-serving_${number}_checksums.txt
(cd dist && sha256sum --quiet -c "$(basename "$checksums")")
for file in "${files[@]}"; do
  [ "$file" = "$checksums" ] || has "$checksums" "$(awk '{ print $2 }' "$checksums")" "$(basename "$file")"
done

mapfile -t pages < <(ls .cache/package/man)
has .cache/package/man "$(printf '%s\n' "${pages[@]}")" clearml-serving.1.gz clearml-serving-run.1.gz

wheels=(dist/*.whl)
.venv-package/bin/python -m twine check --strict "${wheels[@]}"
.venv-package/bin/check-wheel-contents "${wheels[@]}"
for wheel in "${wheels[@]}"; do
  [ "$(stat -c %s "$wheel")" -le 25000000 ] || fail "$wheel has more than 25 MB"
  tree=$work/$(basename "$wheel")
  python3 -m zipfile -e "$wheel" "$tree"
  program=$(echo "$tree"/*.data/scripts/clearml-serving)
  has "$wheel" "$(cd "$tree"/*.data/data/share && find . -type f)" "${pages[@]/#/./man/man1/}" ./bash-completion/completions/clearml-serving \
    ./zsh/site-functions/_clearml-serving ./fish/vendor_completions.d/clearml-serving.fish
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
  rm -rf "$tree"
done

for archive in dist/*.tar.gz; do
  folder=$(basename "$archive" .tar.gz)
  has "$archive" "$(tar -tzf "$archive")" "$folder"/{clearml-serving,README.md,CHANGELOG.md,LICENSE,THIRD_PARTY.md,NOTICES} "${pages[@]/#/$folder/man/}" \
    "$folder/completions/clearml-serving".{bash,zsh,fish}
done
for build in "linux_$machine" "linux_${machine}_static"; do # what this machine can run
  folder=clearml-serving_${number}_$build
  tar -C "$work" -xzf "dist/$folder.tar.gz"
  [[ $("$work/$folder/clearml-serving" version) == "clearml-serving $number "* ]] || fail "dist/$folder.tar.gz: the program is not of version $number"
  for shell in bash zsh fish; do
    "$work/$folder/clearml-serving" completion $shell | cmp - "$work/$folder/completions/clearml-serving.$shell" || fail "dist/$folder.tar.gz: the completion for $shell is not that of the program"
  done
done

for deb in dist/*.deb; do
  # The overrides of the package say what lintian must not ask for, and why.
  lintian --no-cfg --allow-root --fail-on error,warning "$deb" || fail "lintian finds faults in $deb"
  has "$deb" "$(dpkg-deb --fsys-tarfile "$deb" | tar -t)" ./usr/bin/clearml-serving ./usr/lib/systemd/system/clearml-serving@.service "${pages[@]/#/./usr/share/man/man1/}" \
    ./usr/share/bash-completion/completions/clearml-serving ./usr/share/zsh/vendor-completions/_clearml-serving ./usr/share/fish/vendor_completions.d/clearml-serving.fish
done
for rpm in dist/*.rpm; do
  has "$rpm" "$(rpm -qpl "$rpm")" /usr/bin/clearml-serving /usr/lib/systemd/system/clearml-serving@.service "${pages[@]/#//usr/share/man/man1/}" \
    /usr/share/bash-completion/completions/clearml-serving /usr/share/zsh/site-functions/_clearml-serving /usr/share/fish/vendor_completions.d/clearml-serving.fish
  has "$rpm, as settings," "$(rpm -qpc "$rpm")" /etc/clearml-serving/serving.conf
done

# The chart as users get it: complete, and with the images of this version.
chart=$(compgen -G "dist/clearml-serving-go-[0-9]*.tgz")
"$tools/../helm" lint --quiet --kube-version 1.33.0 "$chart"
images=$("$tools/../helm" template check "$chart" --kube-version 1.33.0 | found 'image: .*' | sort -u)
[[ $images == *"clearml-serving-inference:$number"* ]] || fail "$chart: no image has the tag $number: $images"

# The unit as it is installed: known settings only, and little exposure. The program need not be here for that.
root=$work/deb
dpkg-deb -x "$(compgen -G "dist/clearml-serving_*_$machine.deb")" "$root"
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
  for file in "${files[@]}"; do
    cmp "$file" "$work/clone/$file" || fail "the second build has another $file"
  done
  echo "check: a second build in another folder has the same bytes"
fi
echo "check: passed"
