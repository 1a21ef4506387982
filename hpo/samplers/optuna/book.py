"""An Optuna study in memory that mirrors what the ledger has of a run.

Optuna never keeps a trial of its own in it: what a sampler drew is given up at once, and the
point is entered as one that runs. So a book that is written anew from the records holds for
an Optuna sampler what the first one held.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import warnings
from collections.abc import Container
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import TrialState as State

from hpo.samplers.base import Outcome
from hpo.samplers.optuna.distributions import encode, suggest
from hpo.space import SearchSpace
from hpo.trial import Direction, Params, TrialState

_DIRECTIONS = {
    Direction.MAX: optuna.study.StudyDirection.MAXIMIZE,
    Direction.MIN: optuna.study.StudyDirection.MINIMIZE,
}


@dataclasses.dataclass(frozen=True)
class Draft:
    """A point that was drawn. ``attrs`` is what the sampler noted at it, ``number`` its place."""

    params: Params
    attrs: dict[str, Any]
    number: int


class Book:
    """The trials of one run as Optuna sees them."""

    def __init__(self, space: SearchSpace, direction: Direction) -> None:
        # That a study was made is no news to who reads the chief's log, and whether `group`
        # is an experiment of Optuna's is ours to judge.
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        self._space = space
        self._storage = _WithoutFailed()
        self._study = optuna.create_study(
            storage=self._storage, direction=_DIRECTIONS[direction], sampler=_NOBODY
        )
        self._id = self._storage.get_study_id_from_name(self._study.study_name)
        self._open: dict[str, int] = {}

    @property
    def running(self) -> int:
        """How many trials have not ended."""
        return len(self._open)

    def draft(self, sampler: BaseSampler, number: int = 0) -> Draft:
        """What ``sampler`` would try next, as trial ``number`` of Optuna's or a later one."""
        while self._storage.get_n_trials(self._id) < number:
            self._enter(optuna.trial.create_trial(state=State.FAIL))
        self._study.sampler = sampler
        trial = self._study.ask()
        try:
            params = suggest(self._space, trial)
            key = self._storage.get_trial_id_from_study_id_trial_number(self._id, trial.number)
            attrs = dict(self._storage.get_trial(key).system_attrs)
        finally:
            self._study.tell(trial, state=State.FAIL)
        return Draft(params, attrs, trial.number)

    def begin(self, trial_id: str, params: Params, attrs: dict[str, Any]) -> None:
        """A trial runs, with what the sampler noted at it."""
        values, distributions = encode(self._space, params)
        self._open[trial_id] = self._enter(
            optuna.trial.create_trial(
                state=State.RUNNING,
                params=values,
                distributions=distributions,
                system_attrs=attrs,
            )
        )

    def move(self, trial_id: str, params: Params) -> None:
        """A trial runs at ``params`` instead, with the same notes."""
        key = self._open.pop(trial_id)
        attrs = dict(self._storage.get_trial(key).system_attrs)
        self._storage.set_trial_state_values(key, State.FAIL)
        self.begin(trial_id, params, attrs)

    def end(self, trial_id: str, outcome: Outcome) -> None:
        """A trial has ended as ``outcome``; one that had ended before has done so anew."""
        if trial_id not in self._open:
            # Optuna pays no heed to one that failed, and no other is ever tried again.
            self.begin(trial_id, outcome.params, {})
        key = self._open.pop(trial_id)
        value = math.nan if outcome.value is None else outcome.value
        if outcome.state is TrialState.PRUNED:
            for step, reported in outcome.steps:
                self._storage.set_trial_intermediate_value(key, step, reported)
            reached = [outcome.steps[-1][1]] if outcome.steps else None
            self._storage.set_trial_state_values(key, State.PRUNED, reached)
        elif outcome.state is TrialState.COMPLETED and not math.isnan(value):
            self._storage.set_trial_state_values(key, State.COMPLETE, [value])
        else:
            self._storage.set_trial_state_values(key, State.FAIL)

    def _enter(self, trial: optuna.trial.FrozenTrial) -> int:
        return self._storage.create_new_trial(self._id, template_trial=trial)


class _WithoutFailed(optuna.storages.InMemoryStorage):
    """Trials in memory, of which samplers see those that have not failed.

    They pay a failed one no heed, but pass over it at each parameter of each proposal; and as
    many failed ones as there were proposals are nothing but drafts.
    """

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[State] | None = None,
    ) -> list[optuna.trial.FrozenTrial]:
        """The trials of a study in their order; those of ``states`` where some are given."""
        every = super().get_all_trials(study_id, deepcopy=False, states=states)
        kept = [trial for trial in every if trial.state is not State.FAIL]
        return copy.deepcopy(kept) if deepcopy else kept

    def get_n_trials(self, study_id: int, state: tuple[State, ...] | State | None = None) -> int:
        """How many trials there are, with those that failed: their numbers are taken."""
        states = (state,) if isinstance(state, State) else state
        return len(super().get_all_trials(study_id, deepcopy=False, states=states))


# A study must have a sampler; each draft brings its own.
_NOBODY = optuna.samplers.RandomSampler()
