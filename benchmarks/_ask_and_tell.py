"""What the two benchmarks of samplers share: a search without workers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from hpo.registry import SAMPLERS
from hpo.samplers.base import Exhausted, Proposal, Sampler, Wait
from hpo.space import SearchSpace
from hpo.study import Form, Study
from hpo.trial import Direction, Params, TrialRecord, TrialState


def study_of(space: SearchSpace) -> Study:
    """A study that minimises some figure over ``space``."""
    return Study(
        name="benchmark",
        form=Form.FUNCTION,
        objective="regret",
        direction=Direction.MIN,
        epochs=1,
        batch_size=1,
        space=space,
        grid={},
        digest="0" * 64,
    )


class Search:
    """Asks a sampler and tells it, ``running`` trials at a time; the first asked ends first."""

    def __init__(
        self,
        name: str,
        space: SearchSpace,
        seed: int,
        running: int,
        value: Callable[[Params], float],
    ) -> None:
        self.sampler: Sampler = SAMPLERS.load(name)(study_of(space), seed)
        self.values: list[float] = []
        self._name = name
        self._running = running
        self._value = value
        self._pending: list[TrialRecord] = []
        self._asked = 0

    def run(self, trials: int) -> list[float]:
        """The values of so many trials, in the order in which they were asked for."""
        while self._asked < trials and self.ask():
            if len(self._pending) == self._running:
                self.end()
        while self._pending:
            self.end()
        return self.values

    def ask(self) -> bool:
        """One more trial runs; False where there is none to try."""
        trial_id = f"{self._asked:04d}"
        answer = self.sampler.ask(trial_id, tuple(self._pending))
        if isinstance(answer, Wait | Exhausted):
            return False
        self._pending.append(self._record(trial_id, answer))
        self._asked += 1
        return True

    def end(self) -> None:
        """The trial that has run the longest completes."""
        trial = self._pending.pop(0)
        value = self._value(trial.params)
        self.values.append(value)
        self.sampler.told(dataclasses.replace(trial, state=TrialState.COMPLETED, value=value))

    def _record(self, trial_id: str, proposal: Proposal) -> TrialRecord:
        return TrialRecord(
            trial_id=trial_id,
            attempt=1,
            state=TrialState.RUNNING,
            params=proposal.params,
            engine="none",
            sampler=self._name,
            sampler_impl="",
            seed=0,
            study_digest="",
            tag=proposal.tag,
        )
