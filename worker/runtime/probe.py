# Tells what this interpreter is. It runs on whatever was found, even Python 2: no annotations here.
import json
import sys

facts = {"version": list(sys.version_info[:3]), "executable": sys.executable, "prefix": sys.prefix, "packages": {}}
try:
    from importlib import metadata, util

    for name, distribution in json.loads(sys.argv[1]):
        try:
            if util.find_spec(name) is None:
                continue
        except (ImportError, ValueError):
            continue
        try:
            facts["packages"][name] = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            facts["packages"][name] = ""
except ImportError:  # older than 3.8: too old anyway
    pass
sys.stdout.write(json.dumps(facts) + "\n")
