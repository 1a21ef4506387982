"""How many workers fit into a cluster, and what each of them gets there."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from hpo.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Node:
    """What one machine of a cluster has."""

    cpus: float
    gpus: float = 0.0


@dataclasses.dataclass(frozen=True)
class Share:
    """What each worker asks Ray for."""

    cpus: int
    gpus: float


def share(nodes: Sequence[Node], workers: int, gpus_each: float | None, where: str) -> Share:
    """The largest equal share of ``nodes`` of which there are ``workers``.

    ``gpus_each`` None gives one GPU to each worker where there are any, or a part of one
    where there are fewer. Raises UsageError where so many workers do not fit.
    """
    found = int(sum(node.gpus for node in nodes))
    if gpus_each is None:
        gpus = min(1.0, found / workers)
        # Parts of a GPU must add up to whole ones, or one of them stays empty.
        gpus = gpus if gpus in (0.0, 1.0) else 1 / -(-workers // found)
    else:
        gpus = float(gpus_each)
    for cpus in range(max((int(node.cpus) for node in nodes), default=0), 0, -1):
        if fitting(nodes, cpus, gpus) >= workers:
            return Share(cpus, gpus)
    most = fitting(nodes, 1, gpus)
    each = f"1 CPU and {gpus:g} GPU" if gpus else "1 CPU"
    raise UsageError(
        f"--workers {workers}: {where} has room for {most} workers of {each} each: "
        "ask for fewer, or let more nodes join"
    )


def fitting(nodes: Sequence[Node], cpus: int, gpus: float) -> int:
    """How many workers of this size the nodes take."""
    fits = 0
    for node in nodes:
        by_cpus = int(node.cpus // cpus)
        # A part of a GPU lies within one of them.
        by_gpus = int(node.gpus) * int(1 / gpus) if 0 < gpus < 1 else by_cpus
        fits += min(by_cpus, int(node.gpus // gpus) if gpus >= 1 else by_gpus)
    return fits
