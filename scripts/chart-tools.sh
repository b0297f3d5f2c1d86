#!/usr/bin/env bash
# Installs helm and what checks the chart into a folder, at the versions that the Makefile pins:
#   scripts/chart-tools.sh FOLDER [NAME]
# NAME: only that one.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=$1 only=${2:-}
mkdir -p "$tools"
tool() { # tool NAME MODULE@VERSION
  local name=$1 at=$2 file
  [[ -z $only || $only == "$name" ]] || return 0
  file=$tools/$name-${at##*@}
  if [ ! -x "$file" ]; then
    echo "chart-tools: installing $at" >&2
    CGO_ENABLED=0 GOBIN=$tools/.new scripts/again.sh "$GO" install -trimpath -ldflags '-s -w' "$at"
    mv "$tools/.new/$(basename "${at%@*}")" "$file"
  fi
  ln -sf "$(basename "$file")" "$tools/$name"
}
tool helm "helm.sh/helm/v3/cmd/helm@$HELM"
tool helm-unittest "github.com/helm-unittest/helm-unittest/cmd/helm-unittest@$HELM_UNITTEST"
tool kubeconform "github.com/yannh/kubeconform/cmd/kubeconform@$KUBECONFORM"
tool kube-score "github.com/zegl/kube-score/cmd/kube-score@$KUBE_SCORE"
