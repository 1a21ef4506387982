"""What lies in `k8s/`, put together as `kubectl kustomize` would, without that program.

Of kustomize this knows what our own files use: resources, components, JSON patches (RFC 6902)
by kind and label, replacements and images. A test compares the two.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jsonpatch
import yaml

from cluster.launchers.kubernetes.templates import Manifest, containers_of, templates_of
from hpo.child import ROOT

FILES = ROOT / "k8s"
# Marks what is for kustomize alone and never reaches a cluster.
_LOCAL = "config.kubernetes.io/local-config"
_STEP = re.compile(r"\[([^\]]+)\]|([^.\[\]]+)")


@dataclasses.dataclass(frozen=True)
class Patch:
    """Changes (JSON patch) to the objects of a ``kind`` that carry ``labels``."""

    kind: str
    changes: Sequence[Mapping[str, Any]]
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Overlay:
    """A base by another name, with ``components`` and patches; folders are those of `k8s/`.

    ``instance`` has the search's ``id`` and ``study``; the first component puts them in.
    """

    instance: Mapping[str, str]
    base: str = "base"
    components: Sequence[str] = ()
    patches: Sequence[Patch] = ()


def build(overlay: Overlay) -> list[Manifest]:
    """The manifests of ``overlay``, in the order of the base's files."""
    named = {
        "kind": "ConfigMap",
        "metadata": {"name": "tunefleet-instance", "annotations": {_LOCAL: "true"}},
        "data": dict(overlay.instance),
    }
    manifests: list[Manifest] = []
    _add(manifests, FILES / overlay.base)
    manifests.append(named)
    for name in overlay.components:
        _add(manifests, FILES / name)
    for patch in overlay.patches:
        _patch(manifests, patch)
    return [m for m in manifests if _LOCAL not in m["metadata"].get("annotations", {})]


def _add(manifests: list[Manifest], folder: pathlib.Path) -> None:
    """Adds what a folder's kustomization has; a component changes what was there too."""
    whole = _read(folder)
    for name in whole.get("resources", ()):
        path = folder / name
        if path.is_dir():
            _add(manifests, path)
        else:
            # Parts that a file names twice (YAML's anchors) are two: one may be patched alone.
            manifests += map(_unshared, _documents(path))
    _apply(manifests, whole)


def _documents(path: pathlib.Path) -> Iterator[Manifest]:
    yield from yaml.safe_load_all(path.read_text())


def _unshared(manifest: Manifest) -> Manifest:
    made: Manifest = json.loads(json.dumps(manifest))
    return made


def _read(folder: pathlib.Path) -> dict[str, Any]:
    whole: dict[str, Any] = yaml.safe_load((folder / "kustomization.yaml").read_text())
    return whole


def _apply(manifests: list[Manifest], whole: Mapping[str, Any]) -> None:
    """What a kustomization says besides its resources, in kustomize's own order."""
    for row in whole.get("patches", ()):
        target = row["target"]
        name, _, value = target.get("labelSelector", "").partition("=")
        changes = yaml.safe_load(row["patch"])
        _patch(manifests, Patch(target["kind"], changes, {name: value} if name else {}))
    for row in whole.get("images", ()):
        _tag_images(manifests, row["name"], row["newTag"])
    for row in whole.get("replacements", ()):
        _replace(manifests, row)


def _patch(manifests: list[Manifest], patch: Patch) -> None:
    for number, manifest in enumerate(manifests):
        labels = manifest["metadata"].get("labels", {})
        if manifest["kind"] == patch.kind and patch.labels.items() <= labels.items():
            # A copy: what a patch adds must not be shared by the objects that it adds it to.
            manifests[number] = jsonpatch.apply_patch(manifest, copy.deepcopy(patch.changes))


def _tag_images(manifests: Sequence[Manifest], name: str, tag: str) -> None:
    for manifest in manifests:
        for template, _ in templates_of(manifest):
            for container in containers_of(template):
                if container["image"].partition(":")[0] == name:
                    container["image"] = f"{name}:{tag}"


def _replace(manifests: Sequence[Manifest], row: Mapping[str, Any]) -> None:
    source = row["source"]
    (origin,) = _chosen(manifests, source)
    ((holder, key),) = _places(origin, source["fieldPath"])
    for target in row["targets"]:
        options = target.get("options", {})
        for manifest in _chosen(manifests, target["select"]):
            for path in target["fieldPaths"]:
                for place, name in _places(manifest, path):
                    place[name] = _replaced(place[name], holder[key], options)


def _chosen(manifests: Sequence[Manifest], select: Mapping[str, str]) -> list[Manifest]:
    return [
        manifest
        for manifest in manifests
        if manifest["kind"] == select["kind"]
        and re.fullmatch(select.get("name", ".*"), manifest["metadata"]["name"])
    ]


def _replaced(old: str, new: str, options: Mapping[str, Any]) -> str:
    """``old`` with ``new`` in its place, or in that of one of its parts."""
    if "delimiter" not in options:
        return new
    parts = old.split(options["delimiter"])
    parts[options.get("index", 0)] = new
    return str(options["delimiter"]).join(parts)


def _places(value: Any, path: str) -> Iterator[tuple[Any, Any]]:
    """Where a field path leads: containers with the key or the number of what is in them."""
    steps = [in_brackets or plain for in_brackets, plain in _STEP.findall(path)]
    *before, last = steps
    holders = [value]
    for step in before:
        holders = [held[key] for held in holders for key in _keys(held, step)]
    for holder in holders:
        for key in _keys(holder, last):
            yield holder, key


def _keys(holder: Any, step: str) -> list[Any]:
    if isinstance(holder, Mapping):
        return [step]
    if step == "*":
        return list(range(len(holder)))
    name, is_match, value = step.partition("=")
    if is_match:
        return [number for number, row in enumerate(holder) if row.get(name) == value]
    return [int(step)]
