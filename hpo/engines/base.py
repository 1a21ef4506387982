"""The interface of an engine: who drives the loop of asking, running and telling."""

from __future__ import annotations

import abc
import pathlib
from collections.abc import Sequence
from typing import ClassVar

from hpo import env
from hpo.errors import UsageError
from hpo.registry import ENGINES, suggest
from hpo.run import Run


class Engine(abc.ABC):
    """Says which processes a search has, and what each does. Launchers start them."""

    name: ClassVar[str]
    samplers: ClassVar[Sequence[str]]
    pruners: ClassVar[Sequence[str]]

    @abc.abstractmethod
    def roles(self, workers: int) -> list[str]:
        """The ids of the processes of a search with ``workers`` workers, the leader first."""

    @abc.abstractmethod
    def lead(self, run: Run, role: env.Role) -> int:
        """Leads the search in this process; answers the exit status."""

    @abc.abstractmethod
    def prepare(self, study_file: pathlib.Path) -> None:
        """Begins, in the background, whatever makes the first trial of a worker late."""

    @abc.abstractmethod
    def work(self, role: env.Role, token_file: pathlib.Path, study_file: pathlib.Path) -> int:
        """Runs trials in this process; answers the exit status."""

    @abc.abstractmethod
    def drain(self, run: Run, address: str, immediate: bool, suspend: bool = False) -> None:
        """Asks the leader of ``run`` at ``address`` to hand out nothing more.

        ``immediate`` also puts running trials back; with ``suspend`` those that can be saved
        are given back after their next step. Raises PlaceError if it does not answer.
        """

    @abc.abstractmethod
    def scale(self, run: Run, address: str, workers: int) -> None:
        """Tells the leader of ``run`` at ``address`` how many workers are wanted from now on.

        Returns once that is in the ledger. Raises PlaceError if it does not answer, and
        RefusedError where it is about to leave.
        """


def load_engine(name: str) -> Engine:
    """The engine ``name``; raises UsageError for an unknown one."""
    engine: Engine = ENGINES.load(name)
    return engine


def check_supported(engine: Engine, sampler: str, pruner: str) -> None:
    """Raises UsageError, with what is supported, for a pair that the engine cannot do."""
    for kind, name, known in (
        ("sampler", sampler, engine.samplers),
        ("pruner", pruner, engine.pruners),
    ):
        if name not in known:
            raise UsageError(
                f"engine {engine.name} has no {kind} {name!r}: {suggest(name, known)}; "
                f"it supports {', '.join(known)}"
            )
