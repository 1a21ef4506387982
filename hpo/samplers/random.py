"""Independent random points, none of them twice."""

from __future__ import annotations

import random
from collections.abc import Sequence

from hpo.samplers.base import Answer, Exhausted, Proposal, Sampler
from hpo.study import Study
from hpo.trial import Params, TrialRecord
from hpo.untried import Untried


class RandomSampler(Sampler):
    """Draws each active parameter from its own distribution, as KerasTuner's random does.

    A point depends on (seed, trial id) and on the points of earlier trials, which it does
    not repeat: neither the workers nor the results change it.
    """

    ignores_results = True

    def __init__(self, study: Study, seed: int) -> None:
        super().__init__(study, seed)
        self._untried = Untried(study.space)

    def asked(self, record: TrialRecord) -> None:
        self._untried.use(record.params)

    def given(self, trial_id: str, params: Params) -> None:
        self._untried.use(params)

    def moved(self, trial_id: str, proposed: Params, params: Params) -> None:
        self._untried.free(proposed)
        self._untried.use(params)

    def ask(self, trial_id: str, pending: Sequence[TrialRecord]) -> Answer:
        params = self._untried.draw(random.Random(f"{self.seed}:{trial_id}"))
        if params is None:
            return Exhausted()
        self._untried.use(params)
        return Proposal(params)
