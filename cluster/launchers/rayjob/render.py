"""From a search and its size to a RayJob and its volume: pure. An overlay could do the same."""

from __future__ import annotations

import shlex

from cluster.launchers.kubernetes.kustomize import Overlay, Patch, build
from cluster.launchers.kubernetes.patches import Change, added, escaped, replaced, variable
from cluster.launchers.kubernetes.render import (
    Search,
    config_map,
    mounts,
    patience_s,
    volume_patches,
    worker_size,
)
from cluster.launchers.kubernetes.spec import KubernetesSpec
from cluster.launchers.kubernetes.templates import Manifest
from hpo import env

KIND = "RayJob"
CLUSTER = "/spec/rayClusterSpec"
# The only group there is.
GROUP = f"{CLUSTER}/workerGroupSpecs/0"
_HEAD_POD, _WORKER_POD = f"{CLUSTER}/headGroupSpec/template/spec", f"{GROUP}/template/spec"
_BEGIN = 'python /app/launch.py run "$STUDY" --id="$RUN_ID" --runs=/runs --engine=ray'
# KubeRay adds to a RayJob's name for what it makes, and names have 63 letters.
LONGEST_ID = 37


def render(search: Search, spec: KubernetesSpec) -> list[Manifest]:
    """All objects of a search; StudyError where its files are too big to travel."""
    overlay = Overlay(
        instance={"id": search.id, "study": search.study},
        base="rayjob/base",
        components=["rayjob/instance"],
        patches=[Patch(KIND, changes) for changes in _changes(search, spec)] + volume_patches(spec),
    )
    made = build(overlay)
    return [config_map(search), *made] if search.files else made


def entrypoint(spec: KubernetesSpec, options: list[str]) -> str:
    """What the head's shell is told: the study and the id are variables of its container."""
    size = [f"--workers={spec.workers}"]
    if spec.gpus:
        size.append(f"--gpus-per-worker={spec.gpus}")
    return " ".join([_BEGIN, *size, *map(shlex.quote, options)])


def _changes(search: Search, spec: KubernetesSpec) -> list[list[Change]]:
    options = [text for text in search.options if not text.startswith("--engine=")]
    whole = [
        replaced("/spec/entrypoint", entrypoint(spec, options)),
        replaced(f"{GROUP}/replicas", spec.workers),
    ]
    return [whole, _head(search, spec), _workers(spec), _both(spec), _queue(spec)]


def _head(search: Search, spec: KubernetesSpec) -> list[Change]:
    container = f"{_HEAD_POD}/containers/0"
    beside = f"{_HEAD_POD}/initContainers/0"
    changes = variable(container, 2, env.GRACE, f"{spec.grace_s:g}")
    changes += [replaced(f"{part}/image", spec.image) for part in (container, beside)]
    if spec.pull_policy:
        changes.append(added(f"{beside}/imagePullPolicy", spec.pull_policy))
    if spec.data_dir:
        row = {"name": env.DATA_DIR, "value": spec.data_dir}
        changes.append(added(f"{container}/env/-", row))
    if search.files:
        changes += mounts(search, _HEAD_POD)
    return changes


def _workers(spec: KubernetesSpec) -> list[Change]:
    container = f"{_WORKER_POD}/containers/0"
    changes = [replaced(f"{container}/image", spec.worker_image), *worker_size(container, spec)]
    if spec.gpus:
        named = f"{container}/resources/limits/{escaped(spec.gpu_resource)}"
        changes.append(added(named, str(spec.gpus)))
    if spec.data_dir:
        row = {"name": env.DATA_DIR, "value": spec.data_dir}
        changes.append(added(f"{container}/env", [row]))
    if spec.spot:
        changes += _spot()
    return changes


def _spot() -> list[Change]:
    """Workers prefer nodes that may be taken away; the head stays on others."""
    label, value = "node-lifecycle", "spot"
    match = [{"key": label, "operator": "In", "values": [value]}]
    prefer = [{"weight": 100, "preference": {"matchExpressions": match}}]
    avoid = [{"key": label, "operator": "NotIn", "values": [value]}]
    within = "DuringSchedulingIgnoredDuringExecution"
    required = {"nodeSelectorTerms": [{"matchExpressions": avoid}]}
    taint = {"key": label, "operator": "Equal", "value": value, "effect": "NoSchedule"}
    return [
        added(f"{_WORKER_POD}/tolerations/-", taint),
        added(f"{_WORKER_POD}/affinity", {"nodeAffinity": {f"preferred{within}": prefer}}),
        added(f"{_HEAD_POD}/affinity", {"nodeAffinity": {f"required{within}": required}}),
    ]


def _both(spec: KubernetesSpec) -> list[Change]:
    changes: list[Change] = []
    for pod in (_HEAD_POD, _WORKER_POD):
        if spec.pull_policy:
            changes.append(added(f"{pod}/containers/0/imagePullPolicy", spec.pull_policy))
        if spec.priority:
            changes.append(added(f"{pod}/priorityClassName", spec.priority))
        changes.append(replaced(f"{pod}/terminationGracePeriodSeconds", patience_s(spec)))
    return changes


def _queue(spec: KubernetesSpec) -> list[Change]:
    """Kueue admits a RayJob as a whole, and so one whose size stays."""
    if not spec.queue:
        return []
    return [
        added("/metadata/labels/kueue.x-k8s.io~1queue-name", spec.queue),
        added("/spec/suspend", True),
        replaced(f"{CLUSTER}/enableInTreeAutoscaling", False),
        {"op": "remove", "path": f"{CLUSTER}/autoscalerOptions"},
        replaced(f"{GROUP}/minReplicas", spec.workers),
        replaced(f"{GROUP}/maxReplicas", spec.workers),
        *variable(f"{_HEAD_POD}/containers/0", 3, env.MOST_NODES, "0"),
        # Without an autoscaler nothing in the head speaks to the API server.
        added(f"{_HEAD_POD}/automountServiceAccountToken", False),
    ]
