# Describes this interpreter. It may run on any version, even Python 2: no annotations here.
import sys

if sys.path[:1] == [""]:  # -c adds the current folder: its files must not replace modules
    del sys.path[0]

import json
import os


def installed():  # noqa: ANN201
    # Distribution -> version by the names of installed folders (PEP 376): the standard library takes
    # ten times as long, and the start of a service waits for this.
    found = {}
    for folder in reversed(sys.path):  # the first of two is used
        try:
            names = os.listdir(folder or ".")
        except OSError:
            continue
        for name in names:
            if name.endswith(".dist-info"):
                distribution, _, version = name[: -len(".dist-info")].partition("-")
                found[distribution.lower().replace("_", "-").replace(".", "-")] = version
    return found


facts = {"version": list(sys.version_info[:3]), "executable": sys.executable, "prefix": sys.prefix, "packages": {}}
try:
    from importlib import util

    versions = installed()
    for name, distribution in json.loads(sys.argv[1]):
        try:
            if util.find_spec(name) is not None:
                facts["packages"][name] = versions.get(distribution, "")
        except (ImportError, ValueError):
            continue
    # The shared library of ONNX Runtime, for a service that computes with it.
    spec = util.find_spec("onnxruntime")
    for folder in (spec and spec.submodule_search_locations) or []:
        capi = os.path.join(folder, "capi")
        names = os.listdir(capi) if os.path.isdir(capi) else []
        for name in sorted(names):
            if name.startswith("libonnxruntime."):
                facts["onnxruntime"] = os.path.join(capi, name)
except ImportError:  # older than 3.4: not supported anyway
    pass
sys.stdout.write(json.dumps(facts) + "\n")
