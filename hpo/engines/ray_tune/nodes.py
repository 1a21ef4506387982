"""The nodes of the Ray cluster that this process has joined, and those that may yet join."""

from __future__ import annotations

import functools
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from hpo import env
from hpo.engines.ray_tune.room import Node

_CONFIG, _CLUSTER = "--autoscaling-config=", "--gcs-address="


def nodes() -> list[Node]:
    """What there is now."""
    import ray

    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Node(found.get("CPU", 0.0), found.get("GPU", 0.0)) for found in alive]


def joinable(now: Sequence[Node]) -> list[Node]:
    """What Ray's autoscaler may start besides ``now``, as soon as trials wait for it.

    Known on the cluster's head alone, from the file that its autoscaler goes by, or, where
    that is KubeRay's in a container of its own, from our manifest; empty elsewhere, and where
    there is none.
    """
    if most := env.most_nodes():
        return more_alike(most, now)
    import ray

    config = _configuration(ray.get_runtime_context().gcs_address)
    return missing_nodes(config, now) if config else []


def more_alike(most: int, now: Sequence[Node]) -> list[Node]:
    """What lacks of ``most`` nodes like the first that works; a head has no processors."""
    there = [node for node in now if node.cpus]
    return there[:1] * (most - len(there))


def missing_nodes(config: dict[str, Any], now: Sequence[Node]) -> list[Node]:
    """The nodes of an autoscaler's file that are not among ``now``."""
    there = list(now)
    found: list[Node] = []
    for name, kind in config.get("available_node_types", {}).items():
        resources = kind.get("resources", {})
        node = Node(float(resources.get("CPU", 0)), float(resources.get("GPU", 0)))
        count = kind.get("max_workers", config.get("max_workers", 0))
        if name == config.get("head_node_type"):
            count += 1
        for _ in range(count if node.cpus else 0):
            if node in there:
                there.remove(node)
            elif name != config.get("head_node_type") or kind.get("max_workers"):
                found.append(node)
    # Of all workers together there may be fewer than of each kind.
    left = config.get("max_workers", len(found)) - (len(now) - 1)
    return found[: max(0, left)]


@functools.cache
def _configuration(gcs_address: str) -> dict[str, Any] | None:
    """What the autoscaler of this cluster goes by, if it is a process of this host.

    It begins with the cluster and goes by one file to its end.
    """
    import yaml

    for words in _commands():
        told = {name: _after(words, name) for name in (_CONFIG, _CLUSTER)}
        if told[_CONFIG] and told[_CLUSTER] == gcs_address:
            path = pathlib.Path(told[_CONFIG]).expanduser()
            try:
                read: dict[str, Any] = yaml.safe_load(path.read_text())
            except (OSError, yaml.YAMLError):
                return None
            return read
    return None


def _commands() -> Iterator[list[str]]:
    """The command line of each process of this host."""
    for folder in pathlib.Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                yield os.fsdecode((folder / "cmdline").read_bytes()).split("\0")
            except OSError:
                continue


def _after(words: Sequence[str], name: str) -> str:
    return next((word.removeprefix(name) for word in words if word.startswith(name)), "")
