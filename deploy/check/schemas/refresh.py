#!/usr/bin/env python3
"""Writes the JSON Schemas that the chart's manifests are checked against, from the OpenAPI documents of
Kubernetes and the CRDs of the Prometheus operator, both as they are in the modules of the Go proxy.

Usage: deploy/check/schemas/refresh.py      (needs Go, PyYAML and 500 MB of disk; some minutes)

Only the kinds that the chart uses, without descriptions; objects with known properties take no others.
"""

import json
import pathlib
import re
import subprocess
import tempfile

import yaml

# The oldest version that the chart names in kubeVersion, and the newest one.
KUBERNETES = ["1.30.14", "1.37.2"]
OPERATOR = "0.85.0"
KINDS = {
    ("", "v1"): ["ConfigMap", "Service"],
    ("apps", "v1"): ["Deployment", "StatefulSet"],
    ("autoscaling", "v2"): ["HorizontalPodAutoscaler"],
    ("batch", "v1"): ["Job"],
    ("networking.k8s.io", "v1"): ["Ingress", "NetworkPolicy"],
    ("policy", "v1"): ["PodDisruptionBudget"],
}
CUSTOM = ["servicemonitors", "prometheusrules"]
HERE = pathlib.Path(__file__).resolve().parent
REF = "#/definitions/"
# Of no use to a check.
DROPPED = {"description", "default", "format", "externalDocs"}


def download(module: str, cache: str) -> pathlib.Path:
    environment = {"GOMODCACHE": cache, "GOFLAGS": "-modcacherw"}
    command = ["env", *(f"{key}={value}" for key, value in environment.items()), "go", "mod", "download", "-json", module]
    return pathlib.Path(json.loads(subprocess.run(command, check=True, capture_output=True, cwd=cache).stdout)["Dir"])


def strict(schema):
    """The schema without words for people; what has properties takes no others."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("format") == "int-or-string" or schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    preserved = schema.get("x-kubernetes-preserve-unknown-fields")
    result = {}
    for key, value in schema.items():
        if key == "properties":
            # Names here are the manifests', and none of ours.
            result[key] = {name: strict(of) for name, of in value.items()}
        elif key in ("required", "enum"):
            result[key] = value
        elif key not in DROPPED and not key.startswith("x-kubernetes-"):
            result[key] = strict(value)
    if "properties" in result and not preserved:
        result.setdefault("additionalProperties", False)
    return result


def references(schema):
    if isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"].removeprefix(REF)
        for value in schema.values():
            yield from references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from references(value)


def of_kubernetes(definitions: dict, group: str, version: str, kind: str) -> dict:
    named = {"group": group, "version": version, "kind": kind}
    of_kind = lambda of: of.get("x-kubernetes-group-version-kind") == [named]
    (name,) = [name for name, of in definitions.items() if of_kind(of)]
    top = strict(definitions[name])
    # What the server writes is not ours to say.
    top["properties"].pop("status", None)
    top["properties"]["apiVersion"] = {"const": f"{group}/{version}".removeprefix("/")}
    top["properties"]["kind"] = {"const": kind}
    top["required"] = ["apiVersion", "kind", "metadata"]
    needed, used = set(references(top)), {}
    while needed:
        name = needed.pop()
        if name.endswith("api.resource.Quantity"):
            used[name] = {"type": ["string", "number"]}
        elif name.endswith("util.intstr.IntOrString"):
            used[name] = {"type": ["integer", "string"]}
        else:
            used[name] = strict(definitions[name])
            needed |= set(references(used[name])) - used.keys()
    top["definitions"] = used
    return top


def write(path: pathlib.Path, schema: dict):
    path.parent.mkdir(exist_ok=True)
    text = json.dumps(schema, sort_keys=True, separators=(",", ":"))
    path.write_text(re.sub(r"io\.k8s\.(api|apimachinery\.pkg|kube-aggregator\.pkg)\.", "", text) + "\n")
    print(path.relative_to(HERE), path.stat().st_size)


def main():
    with tempfile.TemporaryDirectory() as cache:
        for release in KUBERNETES:
            folder = download(f"k8s.io/kubernetes@v{release}", cache)
            definitions = json.loads((folder / "api/openapi-spec/swagger.json").read_text())["definitions"]
            for (group, version), kinds in KINDS.items():
                for kind in kinds:
                    short = f"-{group.split('.')[0]}-{version}" if group else f"-{version}"
                    schema = of_kubernetes(definitions, group, version, kind)
                    write(HERE / f"v{release}" / f"{kind.lower()}{short}.json", schema)
        folder = download(f"github.com/prometheus-operator/prometheus-operator@v{OPERATOR}", cache)
        for plural in CUSTOM:
            path = folder / "example/prometheus-operator-crd" / f"monitoring.coreos.com_{plural}.yaml"
            spec = yaml.safe_load(path.read_text())["spec"]
            (version,) = spec["versions"]
            schema = strict(version["schema"]["openAPIV3Schema"])
            schema["properties"].pop("status", None)
            schema["properties"]["metadata"] = {"type": "object"}
            schema["required"] = ["apiVersion", "kind", "metadata", "spec"]
            write(HERE / "monitoring" / f"{spec['names']['kind'].lower()}-monitoring-{version['name']}.json", schema)


main()
