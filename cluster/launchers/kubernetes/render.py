"""From a search and its size to manifests: pure. What it changes, an overlay could too."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Sequence

from cluster.launchers.kubernetes.kustomize import Overlay, Patch, build
from cluster.launchers.kubernetes.patches import Change, added, escaped, replaced, variable
from cluster.launchers.kubernetes.spec import GPU, KubernetesSpec
from cluster.launchers.kubernetes.templates import Manifest
from hpo import env
from hpo.errors import StudyError

COMPONENT = "app.kubernetes.io/component"
INSTANCE = "app.kubernetes.io/instance"
NAME = "app.kubernetes.io/name"
CHIEF, WORKER = "chief", "worker"
# Where a person's own file lies in the containers.
STUDY_FOLDER = pathlib.PurePosixPath("/study")
# What all files of a search may have together: a ConfigMap has 1 MiB.
MOST_BYTES = 1_000_000
# So much of the grace period is left to write what there is, once trials were put back.
_TO_WRITE_S = 20
_CONTAINER = "/spec/template/spec/containers/0"


@dataclasses.dataclass(frozen=True)
class Search:
    """One search: its id, its study as the containers find it, and the chief's own options.

    ``files`` are a person's files that travel with it, by name.
    """

    id: str
    study: str
    options: Sequence[str] = ()
    files: dict[str, str] = dataclasses.field(default_factory=dict)


def object_name(run_id: str, part: str = "") -> str:
    """The name of the objects of a run, such as of its ``chief``."""
    return "-".join(filter(None, ("tunefleet", run_id, part)))


def is_chief(manifest: Manifest) -> bool:
    """Whether an object is of a run's chief."""
    return bool(manifest["metadata"]["labels"].get(COMPONENT) == CHIEF)


def render(search: Search, spec: KubernetesSpec) -> list[Manifest]:
    """All objects of a search but its Secret, which is made when it is submitted.

    Raises StudyError where its files are too big to travel.
    """
    overlay = Overlay(
        instance={"id": search.id, "study": search.study},
        components=[f"components/{name}" for name in _components(spec)],
        patches=[
            *_chief(search, spec),
            *_workers(spec),
            *_both(search, spec),
            *volume_patches(spec),
        ],
    )
    made = build(overlay)
    return [config_map(search), *made] if search.files else made


def _components(spec: KubernetesSpec) -> list[str]:
    chosen = {
        "gpu": spec.gpus > 0,
        "spot": spec.spot,
        "kueue": spec.queue is not None,
        "monitoring": spec.monitoring,
        "object-store": spec.store is not None,
    }
    return ["instance", *(name for name, is_chosen in chosen.items() if is_chosen)]


def _of(part: str, changes: Sequence[Change]) -> Patch:
    return Patch("Job", changes, {COMPONENT: part})


def _chief(search: Search, spec: KubernetesSpec) -> list[Patch]:
    # The base ends with an option of its own: --trials.
    changes = [{"op": "remove", "path": f"{_CONTAINER}/args/4"}]
    changes += [added(f"{_CONTAINER}/args/-", _literal(text)) for text in search.options]
    beside = "/spec/template/spec/initContainers"
    # TensorBoard, and with a store what brings the run back and what keeps its copy.
    stored = [f"{beside}/{number}" for number in (1, 2)] if spec.store else []
    changes.append(replaced(f"{_CONTAINER}/image", spec.image))
    for part in (f"{beside}/0", *stored):
        changes.append(replaced(f"{part}/image", spec.image))
        if spec.pull_policy:
            changes.append(added(f"{part}/imagePullPolicy", spec.pull_policy))
    for part in stored:
        changes += variable(part, 1, env.STORE, str(spec.store))
    return [_of(CHIEF, changes)]


def _workers(spec: KubernetesSpec) -> list[Patch]:
    # Both together, always: an Indexed Job scales only so.
    changes = [replaced(f"/spec/{name}", spec.workers) for name in ("parallelism", "completions")]
    changes.append(replaced(f"{_CONTAINER}/image", spec.worker_image))
    changes += worker_size(_CONTAINER, spec)
    if spec.gpus:
        changes += _gpus(spec, f"{_CONTAINER}/resources/limits/")
    return [_of(WORKER, changes)]


def worker_size(container: str, spec: KubernetesSpec) -> list[Change]:
    """Other cores and another memory for the container of a worker, if asked for."""
    resources, changes = f"{container}/resources", []
    if spec.cpus:
        changes.append(replaced(f"{resources}/requests/cpu", spec.cpus))
    if spec.memory:
        for kind in ("requests", "limits"):
            changes.append(replaced(f"{resources}/{kind}/memory", spec.memory))
    return changes


def _gpus(spec: KubernetesSpec, limits: str) -> list[Change]:
    """More of them, or of another kind, than the component asks for."""
    changes: list[Change] = []
    named = limits + escaped(spec.gpu_resource)
    if spec.gpu_resource != GPU:
        changes.append({"op": "move", "from": limits + escaped(GPU), "path": named})
    if spec.gpus > 1:
        device = ",".join(f"gpu:{number}" for number in range(spec.gpus))
        changes.append(replaced(named, str(spec.gpus)))
        # The component put it behind all others.
        changes += variable(_CONTAINER, 7, env.DEVICE, device)
    return changes


def _both(search: Search, spec: KubernetesSpec) -> list[Patch]:
    changes: list[Change] = []
    if spec.pull_policy:
        changes.append(added(f"{_CONTAINER}/imagePullPolicy", spec.pull_policy))
    if spec.priority:
        changes.append(added("/spec/template/spec/priorityClassName", spec.priority))
    if spec.queue:
        changes.append(replaced("/metadata/labels/kueue.x-k8s.io~1queue-name", spec.queue))
    changes.append(replaced("/spec/template/spec/terminationGracePeriodSeconds", patience_s(spec)))
    if search.files:
        changes += mounts(search, "/spec/template/spec")
    if spec.data_dir:
        changes.append(added(f"{_CONTAINER}/env/-", {"name": env.DATA_DIR, "value": spec.data_dir}))
    own = [
        _of(part, variable(_CONTAINER, number, env.GRACE, f"{spec.grace_s:g}"))
        for part, number in ((CHIEF, 8), (WORKER, 6))
    ]
    return [*own, Patch("Job", changes)]


def patience_s(spec: KubernetesSpec) -> int:
    """How long a pod is given to leave: until its trials are put back, and some to write."""
    return math.ceil(spec.grace_s + spec.lease_s / 3) + _TO_WRITE_S


def mounts(search: Search, pod: str) -> list[Change]:
    """The study's files in the first container of the pod at the path ``pod``.

    Each by itself: a folder of them would be links that change.
    """
    volume = {"name": "study", "configMap": {"name": object_name(search.id, "study")}}
    changes = [added(f"{pod}/volumes/-", volume)]
    for name in search.files:
        mount = {
            "name": "study",
            "mountPath": str(STUDY_FOLDER / name),
            "subPath": name,
            "readOnly": True,
        }
        changes.append(added(f"{pod}/containers/0/volumeMounts/-", mount))
    return changes


def volume_patches(spec: KubernetesSpec) -> list[Patch]:
    """Another size or class for the run's volume."""
    changes: list[Change] = []
    if spec.storage:
        changes.append(replaced("/spec/resources/requests/storage", spec.storage))
    if spec.storage_class:
        changes.append(added("/spec/storageClassName", spec.storage_class))
    return [Patch("PersistentVolumeClaim", changes)]


def config_map(search: Search) -> Manifest:
    """What a person's own files travel in; StudyError where they are too big for one."""
    size = sum(len(text.encode()) for text in search.files.values())
    if size > MOST_BYTES:
        raise StudyError(
            f"{', '.join(search.files)}: {size} bytes, and a ConfigMap takes {MOST_BYTES}: keep "
            "data out of the study's file, or build an image with the study in studies/"
        )
    labels = {NAME: "tunefleet", INSTANCE: search.id, COMPONENT: CHIEF}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": object_name(search.id, "study"), "labels": labels},
        "data": dict(search.files),
    }


def _literal(text: str) -> str:
    """An argument in which the kubelet finds no variable of the container's."""
    return text.replace("$(", "$$(")
