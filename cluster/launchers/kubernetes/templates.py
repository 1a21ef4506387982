"""The pods that an object makes: their templates, and how many of each."""

from __future__ import annotations

from typing import Any

Manifest = dict[str, Any]


def templates_of(manifest: Manifest) -> list[tuple[Manifest, int]]:
    """The pod templates of a Job or a RayJob with their numbers; none of any other kind."""
    spec = manifest.get("spec", {})
    if manifest["kind"] == "Job":
        return [(spec["template"], spec["parallelism"])]
    if manifest["kind"] == "RayJob":
        cluster = spec["rayClusterSpec"]
        workers = [(row["template"], row["replicas"]) for row in cluster["workerGroupSpecs"]]
        return [(cluster["headGroupSpec"]["template"], 1), *workers]
    return []


def containers_of(template: Manifest) -> list[dict[str, Any]]:
    """The containers of a pod, those that run beside the others first."""
    pod = template["spec"]
    return [*pod.get("initContainers", ()), *pod["containers"]]
