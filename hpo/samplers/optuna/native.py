"""Optuna's own random and grid, as they come: for comparison with ours.

They are asked in a study in memory that is told of no result. What was killed in between
changes nothing: random is seeded by (seed, trial id), and grid goes by a trial's number.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING

from hpo.errors import SpaceError
from hpo.parameter import Kind, Parameter
from hpo.samplers.base import Answer, Exhausted, Proposal, Sampler, seed_of
from hpo.samplers.optuna.distributions import key_of, suggest, to_optuna
from hpo.study import Study
from hpo.trial import Params, TrialRecord, Value

if TYPE_CHECKING:
    import optuna

# Optuna's grid is a list of all its points.
_LONGEST_GRID = 1_000_000


class _AsItComes(Sampler):
    """One of Optuna's samplers, which pays no heed to results."""

    takes_given = False
    requires = ("optuna",)

    @property
    def implementation(self) -> str:
        """Optuna's class, with the version that is installed."""
        import optuna

        return f"optuna.samplers.{type(self).__name__.removeprefix('Optuna')}Sampler" + (
            f" {optuna.__version__}"
        )

    @property
    def _quiet(self) -> ModuleType:
        """Optuna, which else says on standard error whatever it does."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        return optuna


class OptunaRandom(_AsItComes):
    """Independent random points, some of which may be the same."""

    @classmethod
    def limit(cls, study: Study) -> int | None:
        return None

    def ask(self, trial_id: str, pending: Sequence[TrialRecord]) -> Answer:
        optuna = self._quiet
        sampler = optuna.samplers.RandomSampler(seed=seed_of(self.seed, trial_id))
        return Proposal(suggest(self.space, optuna.create_study(sampler=sampler).ask()))


class OptunaGrid(_AsItComes):
    """Every point of a grid in an order that comes from the seed; its place is the tag."""

    exhaustive = True

    def __init__(self, study: Study, seed: int) -> None:
        super().__init__(study, seed)
        self._size = study.space.grid(study.grid).size
        self._next = 0

    @classmethod
    def check(cls, study: Study) -> None:
        for parameter in study.space.parameters:
            if parameter.conditions:
                raise SpaceError(
                    f"{parameter.name!r} is active only at some values of "
                    f"{parameter.conditions[0].name!r}, which Optuna's grid cannot express: "
                    "take --sampler grid, or take the condition out"
                )
        size = study.space.grid(study.grid).size
        if size > _LONGEST_GRID:
            raise SpaceError(
                f"the grid has {size} points and Optuna's keeps each in memory, at most "
                f"{_LONGEST_GRID} here: take --sampler grid, or fewer levels"
            )

    @classmethod
    def limit(cls, study: Study) -> int | None:
        return study.space.grid(study.grid).size

    def asked(self, record: TrialRecord) -> None:
        self._next = max(self._next, int(record.tag["number"]) + 1)

    def ask(self, trial_id: str, pending: Sequence[TrialRecord]) -> Answer:
        if self._next >= self._size:
            return Exhausted()
        number, self._next = self._next, self._next + 1
        return Proposal(self._point(number), tag={"number": number})

    def _point(self, number: int) -> Params:
        """What Optuna's trial ``number`` tries."""
        create = self._quiet.trial.create_trial
        while len(self._study.get_trials(deepcopy=False)) < number:
            self._study.add_trial(create(state=self._quiet.trial.TrialState.FAIL))
        # It is never told how this ended: of the last one Optuna would raise.
        return suggest(self.space, self._study.ask())

    @functools.cached_property
    def _study(self) -> optuna.Study:
        tuned = (p for p in self.space.parameters if p.kind is not Kind.FIXED)
        levels = {key_of(p): self._levels(p) for p in tuned}
        sampler = self._quiet.samplers.GridSampler(levels, seed=self.seed)
        made: optuna.Study = self._quiet.create_study(sampler=sampler)
        return made

    def _levels(self, parameter: Parameter) -> list[int | float]:
        levels: Sequence[Value] = self.study.grid.get(parameter.name) or [*parameter.levels()]
        return [to_optuna(parameter, level) for level in dict.fromkeys(levels)]
