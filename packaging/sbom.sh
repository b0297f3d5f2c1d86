#!/usr/bin/env bash
# Writes the list of components of a program, as CycloneDX: packaging/sbom.sh VERSION PROGRAM FILE
# What differs between two builds is left out: the time is that of the commit, and the tool has no hashes.
set -euo pipefail
export SOURCE_DATE_EPOCH
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) # goreleaser does not pass it on
cyclonedx-gomod bin -json -noserial -std -version "v$1" -output "$3" "$2" 2>/dev/null || {
  cyclonedx-gomod bin -json -noserial -std -version "v$1" -output "$3" "$2" # once more, to say why
}
python3 - "$3" <<'PYTHON'
import datetime, json, os, sys

path = sys.argv[1]
with open(path) as f:
    found = json.load(f)
epoch = datetime.datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), datetime.timezone.utc)
found["metadata"]["timestamp"] = epoch.strftime("%Y-%m-%dT%H:%M:%SZ")
for tool in found["metadata"]["tools"]:
    tool.pop("hashes", None)
found["metadata"]["component"]["name"] = "clearml-serving-go"
found["metadata"]["component"]["licenses"] = [{"license": {"id": "Apache-2.0"}}]
with open(path, "w") as f:
    json.dump(found, f, indent=1)
    f.write("\n")
PYTHON
