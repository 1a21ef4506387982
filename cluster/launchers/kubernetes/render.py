"""From a search and its size to manifests: pure. What it changes, an overlay could too."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Sequence
from typing import Any

from cluster.launchers.kubernetes.kustomize import Manifest, Overlay, Patch, build
from cluster.launchers.kubernetes.spec import GPU, KubernetesSpec
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

Change = dict[str, Any]


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


def render(search: Search, spec: KubernetesSpec) -> list[Manifest]:
    """All objects of a search but its Secret, which is made when it is submitted.

    Raises StudyError where its files are too big to travel.
    """
    overlay = Overlay(
        instance={"id": search.id, "study": search.study},
        components=_components(spec),
        patches=[*_chief(search, spec), *_workers(spec), *_both(search, spec), *_volume(spec)],
    )
    made = build(overlay)
    return [_files(search), *made] if search.files else made


def _components(spec: KubernetesSpec) -> list[str]:
    chosen = {"gpu": spec.gpus > 0, "spot": spec.spot, "kueue": spec.queue is not None}
    return [name for name, is_chosen in chosen.items() if is_chosen]


def _of(part: str, changes: Sequence[Change]) -> Patch:
    return Patch("Job", changes, {COMPONENT: part})


def _chief(search: Search, spec: KubernetesSpec) -> list[Patch]:
    # The base ends with an option of its own: --trials.
    changes = [{"op": "remove", "path": f"{_CONTAINER}/args/4"}]
    changes += [_add(f"{_CONTAINER}/args/-", _literal(text)) for text in search.options]
    tensorboard = "/spec/template/spec/initContainers/0"
    changes += [_set(f"{part}/image", spec.image) for part in (_CONTAINER, tensorboard)]
    if spec.pull_policy:
        changes.append(_add(f"{tensorboard}/imagePullPolicy", spec.pull_policy))
    return [_of(CHIEF, changes)]


def _workers(spec: KubernetesSpec) -> list[Patch]:
    # Both together, always: an Indexed Job scales only so.
    changes = [_set(f"/spec/{name}", spec.workers) for name in ("parallelism", "completions")]
    changes.append(_set(f"{_CONTAINER}/image", spec.worker_image))
    resources = f"{_CONTAINER}/resources"
    if spec.cpus:
        changes.append(_set(f"{resources}/requests/cpu", spec.cpus))
    if spec.memory:
        for kind in ("requests", "limits"):
            changes.append(_set(f"{resources}/{kind}/memory", spec.memory))
    if spec.gpus:
        changes += _gpus(spec, f"{resources}/limits/")
    return [_of(WORKER, changes)]


def _gpus(spec: KubernetesSpec, limits: str) -> list[Change]:
    """More of them, or of another kind, than the component asks for."""
    changes: list[Change] = []
    named = limits + _escaped(spec.gpu_resource)
    if spec.gpu_resource != GPU:
        changes.append({"op": "move", "from": limits + _escaped(GPU), "path": named})
    if spec.gpus > 1:
        device = ",".join(f"gpu:{number}" for number in range(spec.gpus))
        changes.append(_set(named, str(spec.gpus)))
        # The component put it behind all others.
        changes += _variable(7, env.DEVICE, device)
    return changes


def _both(search: Search, spec: KubernetesSpec) -> list[Patch]:
    changes: list[Change] = []
    if spec.pull_policy:
        changes.append(_add(f"{_CONTAINER}/imagePullPolicy", spec.pull_policy))
    if spec.priority:
        changes.append(_add("/spec/template/spec/priorityClassName", spec.priority))
    if spec.queue:
        changes.append(_set("/metadata/labels/kueue.x-k8s.io~1queue-name", spec.queue))
    grace_s = math.ceil(spec.grace_s + spec.lease_s / 3) + _TO_WRITE_S
    changes.append(_set("/spec/template/spec/terminationGracePeriodSeconds", grace_s))
    if search.files:
        changes += _mounts(search)
    if spec.data_dir:
        changes.append(_add(f"{_CONTAINER}/env/-", {"name": env.DATA_DIR, "value": spec.data_dir}))
    own = [
        _of(part, _variable(number, env.GRACE, f"{spec.grace_s:g}"))
        for part, number in ((CHIEF, 8), (WORKER, 6))
    ]
    return [*own, Patch("Job", changes)]


def _variable(number: int, name: str, value: str) -> list[Change]:
    """Another value for a variable; its place in the base is checked on the way."""
    place = f"{_CONTAINER}/env/{number}"
    return [{"op": "test", "path": f"{place}/name", "value": name}, _set(f"{place}/value", value)]


def _mounts(search: Search) -> list[Change]:
    """The study's files, each by itself: a folder of them would be links that change."""
    volume = {"name": "study", "configMap": {"name": object_name(search.id, "study")}}
    changes = [_add("/spec/template/spec/volumes/-", volume)]
    for name in search.files:
        mount = {
            "name": "study",
            "mountPath": str(STUDY_FOLDER / name),
            "subPath": name,
            "readOnly": True,
        }
        changes.append(_add(f"{_CONTAINER}/volumeMounts/-", mount))
    return changes


def _volume(spec: KubernetesSpec) -> list[Patch]:
    changes: list[Change] = []
    if spec.storage:
        changes.append(_set("/spec/resources/requests/storage", spec.storage))
    if spec.storage_class:
        changes.append(_add("/spec/storageClassName", spec.storage_class))
    return [Patch("PersistentVolumeClaim", changes)]


def _files(search: Search) -> Manifest:
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


def _set(path: str, value: Any) -> Change:
    return {"op": "replace", "path": path, "value": value}


def _add(path: str, value: Any) -> Change:
    return {"op": "add", "path": path, "value": value}


def _escaped(name: str) -> str:
    """A name as a part of a JSON pointer."""
    return name.replace("~", "~0").replace("/", "~1")


def _literal(text: str) -> str:
    """An argument in which the kubelet finds no variable of the container's."""
    return text.replace("$(", "$$(")
