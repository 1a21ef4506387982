"""The interface of an engine: who drives the loop of asking, running and telling."""

from __future__ import annotations

import abc
import pathlib
from typing import ClassVar

from hpo import env
from hpo.errors import UsageError
from hpo.packages import check_installed
from hpo.registry import ENGINES, NO_PRUNER, PRUNERS, SAMPLERS, owner_of, suggest
from hpo.run import Run


class Engine(abc.ABC):
    """Says which processes a search has, and what each does. Launchers start them."""

    name: ClassVar[str]
    # Packages that must be installed where it leads.
    requires: ClassVar[tuple[str, ...]] = ()

    def check_installed(self) -> None:
        """Raises UsageError, saying what to do, where a package is missing."""
        check_installed(f"engine {self.name}", self.requires)

    @property
    def samplers(self) -> list[str]:
        """The samplers that it can lead with: everybody's, and those that only it has."""
        return [name for name in SAMPLERS if owner_of(name) in (None, self.name)]

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
    def scale(self, run: Run, address: str, workers: int) -> int | None:
        """Tells the leader of ``run`` at ``address`` how many workers are wanted from now on.

        Returns once that is in the ledger: how many workers it has room for, None for any
        number. Raises PlaceError if it does not answer, and
        RefusedError where it is about to leave.
        """

    def check_place(self, host: str, insecure: bool, by_hand: bool) -> None:
        """Raises UsageError where it cannot lead at ``host``, let others in, or be started by
        hand, a role at a time.
        """

    def check_storage(self, url: str) -> None:
        """Raises UsageError where it can keep no Optuna study at ``url``."""
        raise UsageError(
            f"engine {self.name} keeps no Optuna study: leave out --set optuna_storage, "
            "or take --engine optuna"
        )


def load_engine(name: str) -> Engine:
    """The engine ``name``; raises UsageError for an unknown one."""
    engine: Engine = ENGINES.load(name)
    return engine


def check_supported(engine: Engine, sampler: str, pruner: str) -> None:
    """Raises UsageError, with what is supported, for what the engine cannot do together."""
    known = engine.samplers
    if sampler not in known:
        owner = owner_of(sampler) if sampler in SAMPLERS else None
        where = f"only engine {owner} has it" if owner else suggest(sampler, known)
        raise UsageError(
            f"engine {engine.name} has no sampler {sampler!r}: {where}; "
            f"it supports {', '.join(known)}"
        )
    if PRUNERS.check(pruner) != NO_PRUNER and SAMPLERS.load(sampler).decides_epochs:
        raise UsageError(
            f"sampler {sampler!r} decides itself which trials go on, so pruner {pruner!r} does not "
            f"go with it: take --pruner {NO_PRUNER}, or another sampler"
        )
