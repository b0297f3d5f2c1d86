"""Writes the JSON schemas that the chart's objects are checked with: python scripts/chart_schemas.py FOLDER.

The sources come by the Go module proxy. Needs PyYAML. Run it after a change of a version below.
"""

import json
import pathlib
import subprocess
import sys

import yaml

KUBERNETES = "k8s.io/kubernetes@v1.33.0"
KINDS = {
    "io.k8s.api.apps.v1.Deployment": "deployment-apps-v1",
    "io.k8s.api.apps.v1.StatefulSet": "statefulset-apps-v1",
    "io.k8s.api.core.v1.Service": "service-v1",
    "io.k8s.api.core.v1.Secret": "secret-v1",
    "io.k8s.api.core.v1.ServiceAccount": "serviceaccount-v1",
    "io.k8s.api.policy.v1.PodDisruptionBudget": "poddisruptionbudget-policy-v1",
    "io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler": "horizontalpodautoscaler-autoscaling-v2",
    "io.k8s.api.networking.v1.Ingress": "ingress-networking-v1",
    "io.k8s.api.networking.v1.NetworkPolicy": "networkpolicy-networking-v1",
}
CRDS = {
    "github.com/kedacore/keda/v2@v2.17.0": ["config/crd/bases/keda.sh_scaledobjects.yaml"],
    "sigs.k8s.io/gateway-api@v1.3.0": [
        "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml",
        "config/crd/standard/gateway.networking.k8s.io_grpcroutes.yaml",
    ],
    "github.com/prometheus-operator/prometheus-operator@v0.83.0": [
        "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
    ],
    "github.com/kserve/kserve@v0.15.2": [
        "config/crd/full/serving.kserve.io_clusterservingruntimes.yaml",
        "config/crd/full/serving.kserve.io_inferenceservices.yaml",
    ],
    "sigs.k8s.io/gateway-api-inference-extension@v1.0.0": [
        "config/crd/bases/inference.networking.k8s.io_inferencepools.yaml"
    ],
}


def module(at):
    out = subprocess.run(
        ["go", "mod", "download", "-json", at], check=True, capture_output=True, text=True, cwd="/"
    )
    return pathlib.Path(json.loads(out.stdout)["Dir"])


def closed(schema, definitions):
    """A schema without references and texts, in which unknown fields are errors."""
    if isinstance(schema, list):
        return [closed(s, definitions) for s in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        if name.endswith("JSONSchemaProps"):
            return {}
        return closed(definitions[name], definitions)
    if schema.get("x-kubernetes-int-or-string") or schema.get("format") == "int-or-string":
        return {"anyOf": [{"type": "string"}, {"type": "integer"}]}
    out = {}
    for key, value in schema.items():
        if (
            key in ("description", "title", "default", "example")
            and not isinstance(value, dict)
            or key.startswith("x-")
            or key == "format"
        ):
            continue
        if key == "properties":
            out[key] = {name: closed(s, definitions) for name, s in value.items()}
        else:
            out[key] = closed(value, definitions)
    if (
        out.get("type") == "object"
        and "properties" in out
        and "additionalProperties" not in out
        and not schema.get("x-kubernetes-preserve-unknown-fields")
    ):
        out["additionalProperties"] = False
    return out


def write(folder, name, schema):
    schema.get("properties", {}).setdefault("apiVersion", {"type": "string"})
    schema.get("properties", {}).setdefault("kind", {"type": "string"})
    (folder / (name + ".json")).write_text(json.dumps(schema, separators=(",", ":"), sort_keys=True) + "\n")


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    swagger = json.loads((module(KUBERNETES) / "api/openapi-spec/swagger.json").read_text())
    # A quantity may be written as a number.
    swagger["definitions"]["io.k8s.apimachinery.pkg.api.resource.Quantity"] = {
        "anyOf": [{"type": "string"}, {"type": "number"}]
    }
    for name, file in KINDS.items():
        write(folder, file, closed(swagger["definitions"][name], swagger["definitions"]))
    for at, files in CRDS.items():
        root = module(at)
        for file in files:
            crd = yaml.safe_load((root / file).read_text())["spec"]
            for version in crd["versions"]:
                schema = closed(version["schema"]["openAPIV3Schema"], {})
                schema["properties"]["metadata"] = {"type": "object"}
                group = crd["group"].split(".")[0]
                write(folder, f"{crd['names']['kind'].lower()}-{group}-{version['name']}", schema)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
