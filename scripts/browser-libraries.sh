#!/usr/bin/env bash
# make generate: fetches the libraries of the web pages, at the versions pinned here, with
# their licences. The result is committed, so that a build needs neither Node nor a network.
set -euo pipefail
cd "$(dirname "$0")/.."

assets=controlplane/ui/assets
command -v npm >/dev/null || { echo "generate: npm is needed to fetch the browser libraries" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# fetch PACKAGE VERSION unpacks a package into $work/PACKAGE.
fetch() {
  (cd "$work" && npm pack --silent "$1@$2" >/dev/null && mkdir "$1" && tar xzf "$1-$2.tgz" -C "$1" --strip-components=1)
  echo "generate: $1 $2"
}
fetch htmx.org 2.0.11
fetch uplot 1.6.32
cp "$work/htmx.org/dist/htmx.min.js" "$assets/htmx.min.js"
cp "$work/htmx.org/LICENSE" "$assets/htmx.LICENSE"
cp "$work/uplot/dist/uPlot.iife.min.js" "$assets/uplot.min.js"
cp "$work/uplot/dist/uPlot.min.css" "$assets/uplot.min.css"
cp "$work/uplot/LICENSE" "$assets/uplot.LICENSE"
