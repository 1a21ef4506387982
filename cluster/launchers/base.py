"""The interface of a launcher: a place other than this host's own processes to search in.

A place is one file, or one folder, and one row in the table.
"""

from __future__ import annotations

import abc
import argparse
from typing import ClassVar

from hpo.registry import Registry

LAUNCHERS = Registry(
    "place",
    {
        "k8s": "cluster.launchers.kubernetes.launcher:Kubernetes",
    },
)


class Launcher(abc.ABC):
    """One kind of place. Each verb gets what was typed and answers the exit status.

    Raises UsageError or RunError for what was typed, PlaceError where the place fails.
    """

    scheme: ClassVar[str]

    @abc.abstractmethod
    def render(self, args: argparse.Namespace) -> int:
        """Prints what would be sent, from what was typed alone; sends nothing."""


def load_launcher(place: str) -> Launcher:
    """The launcher of a kind of place; raises UsageError for an unknown one."""
    launcher: Launcher = LAUNCHERS.load(place)()
    return launcher
