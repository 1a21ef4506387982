"""The interface of a launcher: a place other than this host's own processes to search in.

What it prints is what the verbs print of a run here; a run elsewhere is named by a handle,
``SCHEME://WHERE/ID``.
"""

from __future__ import annotations

import abc
import argparse
import dataclasses
import pathlib
import re
import sys
from typing import ClassVar

from hpo.errors import UsageError
from hpo.registry import Registry, suggest
from hpo.run import check_id

LAUNCHERS = Registry(
    "place",
    {
        "k8s": "cluster.launchers.kubernetes.launcher:Kubernetes",
        "ray": "cluster.launchers.ray.launcher:RayCluster",
        "rayjob": "cluster.launchers.rayjob.launcher:RayJob",
    },
)
# What a handle begins with, and the place that it is of.
_SCHEMES = {"k8s": "k8s", "rayjob": "rayjob", "raycluster": "ray"}

_HANDLE = re.compile(r"([a-z0-9]+)://([^/]+)/([^/]+)")


@dataclasses.dataclass(frozen=True)
class Handle:
    """A run elsewhere: the kind of place, which one of them, and the run's id there."""

    scheme: str
    where: str
    id: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.where}/{self.id}"


def parse_handle(text: str) -> Handle:
    """The handle that ``text`` is; raises UsageError where it is none, or of no known place."""
    match = _HANDLE.fullmatch(text)
    if not match:
        raise UsageError(
            f"bad handle {text!r}: give one such as k8s://namespace/id or raycluster://host:8265/id"
        )
    handle = Handle(*match.groups())
    if handle.scheme not in _SCHEMES:
        raise UsageError(f"unknown place {handle.scheme!r}: {suggest(handle.scheme, _SCHEMES)}")
    check_id(handle.id)
    return handle


class Launcher(abc.ABC):
    """One kind of place. Each verb gets what was typed and answers the exit status.

    ``render`` is pure; ``submit`` makes a run or attaches to it, and never makes it twice.
    The other verbs get the handle of a run besides. Raises
    UsageError or RunError for what was typed, PlaceError where the place fails.
    """

    scheme: ClassVar[str]
    # The options that only this place has, as the parsed arguments name them.
    takes: ClassVar[tuple[str, ...]]
    # The engine of a search there where none is named.
    engine: ClassVar[str] = "keras-tuner"

    @abc.abstractmethod
    def check_engine(self, engine: str) -> None:
        """Raises UsageError for an engine whose searches cannot be there."""

    @abc.abstractmethod
    def render(self, args: argparse.Namespace) -> int:
        """Prints what would be sent; sends nothing."""

    @abc.abstractmethod
    def submit(self, args: argparse.Namespace) -> int:
        """Starts a search there, or attaches to it."""

    @abc.abstractmethod
    def list_runs(self, args: argparse.Namespace) -> int:
        """Prints the runs there are."""

    @abc.abstractmethod
    def doctor(self, args: argparse.Namespace) -> int:
        """Prints what the place has and lacks; 1 if something is missing."""

    @abc.abstractmethod
    def of_run(self, verb: str, handle: Handle, args: argparse.Namespace) -> int:
        """Does ``verb`` with the run ``handle``."""

    @abc.abstractmethod
    def fetch(self, handle: Handle, args: argparse.Namespace, folder: pathlib.Path) -> None:
        """Copies the run's ledger, as it is now, into ``folder``: to read, it is a run here."""


def say_submitted(handle: Handle, made: bool) -> None:
    """Prints a run's handle and what is next; on the side, where it was there before."""
    if not made:
        print(f"launch.py: run {handle.id} was there already", file=sys.stderr)
    print(f"run {handle}\nnext:")
    for verb in ("status", "watch", "logs", "tensorboard"):
        print(f"  python launch.py {verb} {handle}")


def load_launcher(place: str) -> Launcher:
    """The launcher of a kind of place; raises UsageError for an unknown one."""
    launcher: Launcher = LAUNCHERS.load(place)()
    return launcher


def launcher_for(place: str, args: argparse.Namespace) -> Launcher:
    """The same; UsageError where an option was typed that only another place has."""
    chosen = load_launcher(place)
    for other in LAUNCHERS:
        for name in load_launcher(other).takes:
            if name not in chosen.takes and getattr(args, name, None) not in (None, False):
                option = f"--{name.replace('_', '-')}"
                raise UsageError(f"{option} goes with --on {other}, not with {place}: leave it out")
    return chosen


def launcher_of(handle: Handle) -> Launcher:
    """The launcher of the place that a run is in."""
    return load_launcher(_SCHEMES[handle.scheme])
