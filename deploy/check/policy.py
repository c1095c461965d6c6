#!/usr/bin/env python3
"""What every pod and every container of ours has to be, whatever the values: not root, nothing writable,
no capability, probed, bounded, and evicted with care.

Usage: policy.py helm <MANIFESTS | policy.py compose <PROJECT.json | policy.py selftest BAD.yaml
Exit status: 0 nothing found; 1 something (one line each), or nothing to look at.
"""

import json
import sys

import yaml

WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob", "Pod")
# Servers of others, whose images want to write to themselves at the start.
WRITABLE = {"kafka"}
# As its own image's user.
OWN_USER = {"kafka"}


def pod_of(manifest):
    spec = manifest["spec"]
    if manifest["kind"] == "Pod":
        return manifest.get("metadata", {}), spec
    if manifest["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    return spec["template"].get("metadata", {}), spec["template"]["spec"]


def container_findings(container, pod_security, is_main, is_job):
    security = container.get("securityContext", {})
    merged = {**pod_security, **security}
    if merged.get("runAsNonRoot") is not True:
        yield "may run as root (runAsNonRoot)"
    if not merged.get("runAsUser"):
        yield "has no user by number, or root (runAsUser)"
    if security.get("readOnlyRootFilesystem") is not True:
        yield "can write to its root file system"
    if security.get("allowPrivilegeEscalation") is not False:
        yield "can gain rights (allowPrivilegeEscalation)"
    if security.get("privileged"):
        yield "is privileged"
    capabilities = security.get("capabilities", {})
    if capabilities.get("drop") != ["ALL"] or capabilities.get("add"):
        yield "keeps capabilities"
    if merged.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "has no seccomp profile"
    resources = container.get("resources", {})
    for kind, what in (("requests", "cpu"), ("requests", "memory"), ("limits", "memory")):
        if not resources.get(kind, {}).get(what):
            yield f"has no {kind}.{what}"
    image = container.get("image", "")
    if "@sha256:" not in image and (":" not in image.rsplit("/", 1)[-1] or image.endswith(":latest")):
        yield f"has an image that changes by itself ({image})"
    if is_main and not is_job:
        for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
            if not container.get(probe):
                yield f"has no {probe}"


def selects(selector, labels):
    wanted = selector.get("matchLabels", {})
    return bool(wanted) and not selector.get("matchExpressions") and wanted.items() <= labels.items()


def helm(manifests):
    manifests = [manifest for manifest in manifests if manifest]
    of_kind = lambda kind: [manifest for manifest in manifests if manifest["kind"] == kind]
    pods = []
    for manifest in manifests:
        if manifest["kind"] not in WORKLOADS:
            continue
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        where, is_job = f"{kind}/{name}", kind in ("Job", "CronJob")
        metadata, pod = pod_of(manifest)
        labels = metadata.get("labels", {})
        pods.append((where, labels))
        for what in ("hostNetwork", "hostPID", "hostIPC"):
            if pod.get(what):
                yield f"{where}: shares the machine ({what})"
        if pod.get("automountServiceAccountToken") is not False:
            yield f"{where}: has a token of Kubernetes"
        for volume in pod.get("volumes", []):
            if "hostPath" in volume:
                yield f"{where}: sees the machine's files (hostPath)"
            if "secret" in volume and volume["secret"].get("defaultMode") != 0o400:
                yield f"{where}: volume {volume['name']} opens a Secret to others (defaultMode)"
            if "emptyDir" in volume and not volume["emptyDir"].get("sizeLimit"):
                yield f"{where}: volume {volume['name']} has no bound"
        main = pod.get("containers", [])
        for container in [*pod.get("initContainers", []), *main]:
            for finding in container_findings(container, pod.get("securityContext", {}), container in main, is_job):
                yield f"{where}: container {container['name']} {finding}"
            for variable in container.get("env", []):
                if "valueFrom" in variable and "secretKeyRef" in variable["valueFrom"]:
                    yield f"{where}: container {container['name']} has a secret in its environment ({variable['name']})"
        if not is_job:
            budgets = [b for b in of_kind("PodDisruptionBudget") if selects(b["spec"]["selector"], labels)]
            if len(budgets) != 1:
                yield f"{where}: has {len(budgets)} PodDisruptionBudgets"
            if not pod.get("terminationGracePeriodSeconds"):
                yield f"{where}: has no time to stop (terminationGracePeriodSeconds)"
        if kind == "StatefulSet" and manifest["spec"].get("replicas") != 1:
            yield f"{where}: a member's node runs more than once"
    # What selects nothing is a mistake.
    for kind, of in (("Service", lambda s: {"matchLabels": s.get("selector", {})}), ("PodDisruptionBudget", lambda s: s["selector"]),
                     ("NetworkPolicy", lambda s: s["podSelector"])):
        for manifest in of_kind(kind):
            if not any(selects(of(manifest["spec"]), labels) for _, labels in pods):
                yield f"{kind}/{manifest['metadata']['name']}: selects no pod"
    if not pods:
        sys.exit("policy: no pods to look at")


def compose(project):
    for name, service in project["services"].items():
        once = service.get("restart", "no") == "no"
        user = service.get("user", "")
        if name not in OWN_USER and (not user or user.split(":")[0] in ("0", "root")):
            yield f"{name}: may run as root"
        if name not in WRITABLE and not service.get("read_only"):
            yield f"{name}: can write to its root file system"
        if service.get("cap_drop") != ["ALL"] or service.get("cap_add") or service.get("privileged"):
            yield f"{name}: keeps capabilities"
        if "no-new-privileges:true" not in service.get("security_opt", []):
            yield f"{name}: can gain rights"
        limits = service.get("deploy", {}).get("resources", {}).get("limits", {})
        for what in ("cpus", "memory", "pids"):
            if not limits.get(what):
                yield f"{name}: has no limit of {what}"
        image = service.get("image", "")
        if ":" not in image.rsplit("/", 1)[-1] or image.endswith(":latest"):
            yield f"{name}: has an image that changes by itself ({image})"
        if not once and not service.get("healthcheck", {}).get("test"):
            yield f"{name}: has no healthcheck"
        if not once and not service.get("stop_grace_period") and name not in ("redis", "prometheus", "grafana"):
            yield f"{name}: has no time to stop"
        for port in service.get("ports", []):
            if port.get("host_ip") != "127.0.0.1":
                yield f"{name}: port {port.get('target')} is open to other machines"
        for variable, value in service.get("environment", {}).items():
            if "PASSWORD" in variable and not variable.endswith("_FILE"):
                yield f"{name}: has a secret in its environment ({variable})"
            if "://" in (value or "") and "@" in value:
                yield f"{name}: has a URL with a password in its environment ({variable})"
        for volume in service.get("volumes", []):
            if volume.get("source", "").endswith("docker.sock"):
                yield f"{name}: holds Docker itself"
    if not project["services"]:
        sys.exit("policy: no services to look at")


def selftest(path):
    """Each manifest, good but for one thing, has to be found for that thing, and for nothing else."""
    cases = yaml.safe_load(open(path))
    for case in cases["cases"]:
        base = json.loads(json.dumps(cases[case["of"]]))
        for pointer, value in case["set"].items():
            *parents, last = [int(key) if key.isdigit() else key for key in str(pointer).split("/")]
            at = base
            for key in parents:
                at = at[key]
            if value is None:
                del at[last]
            else:
                at[last] = value
        found = list(compose(base) if case["of"] == "compose" else helm(base))
        if len(found) != 1 or case["finds"] not in found[0]:
            yield f"{case['finds']!r} was wanted and {found!r} found"
    for base in ("helm", "compose"):
        found = list(globals()[base](cases[base]))
        if found:
            yield f"the good {base} is not: {found!r}"


def main():
    match sys.argv[1:]:
        case ["helm"]:
            findings = list(helm(list(yaml.safe_load_all(sys.stdin))))
        case ["compose"]:
            findings = list(compose(json.load(sys.stdin)))
        case ["selftest", path]:
            findings = list(selftest(path))
        case _:
            sys.exit(__doc__)
    for finding in findings:
        print(f"policy: {finding}")
    sys.exit(1 if findings else 0)


main()
