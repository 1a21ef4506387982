"""What a Ray cluster has and lacks for a search: `doctor --on ray`."""

from __future__ import annotations

import dataclasses
import json
import platform
from typing import Any

from cluster import tables
from cluster.launchers.ray import frames, parcel
from cluster.launchers.ray.connection import Cluster, is_open
from cluster.launchers.ray.inside import command, forget
from cluster.launchers.ray.jobs import reading_name
from hpo.engines.ray_tune.room import Node, share
from hpo.errors import PlaceError, UsageError


@dataclasses.dataclass(frozen=True)
class Found:
    """What was found, as rows of a table; what is missing, and what is dangerous."""

    rows: list[tuple[str, str]]
    missing: list[str]
    warnings: list[str]

    def to_json(self) -> dict[str, Any]:
        """The object that ``doctor --on ray --json`` prints."""
        return {**dict(self.rows), "missing": self.missing, "warnings": self.warnings}


def examine(cluster: Cluster, runs: str, python: str, workers: int, gpus: float | None) -> Found:
    """Asks the head, by a job that carries the project's code and nothing of a study."""
    told = _ask(cluster, runs, python)
    now = [Node(**node) for node in told["nodes"]]
    later = [Node(**node) for node in told["joinable"]]
    missing, room = _missing(told), "none"
    try:
        each = share([*now, *later], workers, gpus, f"the Ray cluster at {cluster.where}")
        room = f"{workers} workers with {_words(Node(each.cpus, each.gpus))} each"
    except UsageError as error:
        missing += [] if told["error"] else [str(error)]
    open_to_all = is_open(cluster.where)
    free = tables.size(told["head"]["disk"]["runs"]["free"])
    rows = [
        ("head", cluster.where),
        ("ray", f"{cluster.version}, here too"),
        ("python", f"{told['python']} ({told['executable']}), here {platform.python_version()}"),
        ("token", "none is asked for" if open_to_all else "asked for, and ours is taken"),
        ("nodes", "; ".join(map(_words, now)) or "none"),
        ("may join", "; ".join(map(_words, later)) or "none that this head knows of"),
        ("room", room),
        ("runs", f"{told['runs']}, {free} free"),
        ("shared storage", "not needed: checkpoints, weights and logs go to the head"),
    ]
    warnings = list(told["head"]["warnings"])
    if open_to_all:
        warnings.append(
            f"{cluster.where} asks for no token: whoever reaches it runs commands there; "
            "start Ray with RAY_AUTH_MODE=token"
        )
    return Found(rows, missing, warnings)


def _missing(told: dict[str, Any]) -> list[str]:
    """What the head itself lacks."""
    missing = [f"on the head: {text}" for text in told["head"]["missing"]]
    here = _minor(platform.python_version())
    if here != _minor(told["python"]):
        missing.append(f"Python {here} on the cluster, as here: it has {told['python']}")
    if told["error"]:
        missing.append(f"a cluster that {told['executable']} can join: {told['error']}")
    if told["runs_unsafe"]:
        missing.append(told["runs_unsafe"])
    return missing


def _ask(cluster: Cluster, runs: str, python: str) -> dict[str, Any]:
    name, found, rest = reading_name("doctor"), b"", ""
    with parcel.packed(parcel.files_of_project()) as path:
        cluster.submit(name, command(python, ["examine", "", runs]), parcel=path)
    try:
        for line in frames.lines(cluster.log(name)):
            frame = frames.parse(line) if line else None
            if frame and frame.kind == frames.OUT:
                found += frame.data
            rest = line or rest
        exit_code = cluster.job(name).driver_exit_code
    finally:
        forget(cluster, name)
    if not found:
        if exit_code == 127:
            raise UsageError(f"the cluster has no {python}: give --python, its path there")
        raise PlaceError(f"{python} on the head of {cluster.where} failed: {rest}")
    answer: dict[str, Any] = json.loads(found)
    return answer


def _minor(version: str) -> str:
    return version.rpartition(".")[0]


def _words(node: Node) -> str:
    gpus = f" and {node.gpus:g} GPU" if node.gpus else ""
    return f"{node.cpus:g} CPU{gpus}"
