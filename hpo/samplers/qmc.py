"""A scrambled Sobol sequence: points that fill the space more evenly than random ones."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from hpo.samplers.base import Answer, Exhausted, Proposal, Sampler, seed_of
from hpo.study import Study
from hpo.trial import Params, TrialRecord
from hpo.untried import Untried

# So many of its points in a row that were tried mean that it has few others left.
_SKIPS = 1000


class QmcSampler(Sampler):
    """SciPy's sequence, one dimension for each parameter, whether it is active or not.

    The sequence depends on the seed alone, and each point that was not tried is taken in its
    order: neither the workers nor the results change it. Optuna's own sampler of this kind
    draws conditional parameters, and the whole first point, at random.
    """

    ignores_results = True
    requires = ("scipy",)

    def __init__(self, study: Study, seed: int) -> None:
        super().__init__(study, seed)
        self._untried = Untried(study.space)
        self._index = {parameter: i for i, parameter in enumerate(study.space.tunable)}
        self._sequence: Any = None
        self._next = 0

    @property
    def implementation(self) -> str:
        """SciPy's class, with the version that is installed."""
        return self.installed("scipy.stats.qmc.Sobol")

    def asked(self, record: TrialRecord) -> None:
        self._untried.use(record.params)
        self._next = int(record.tag.get("index", self._next - 1)) + 1

    def given(self, trial_id: str, params: Params) -> None:
        self._untried.use(params)

    def moved(self, trial_id: str, proposed: Params, params: Params) -> None:
        self._untried.free(proposed)
        self._untried.use(params)

    def ask(self, trial_id: str, pending: Sequence[TrialRecord]) -> Answer:
        if self._untried.none_left:
            return Exhausted()
        params, note = self._fresh(trial_id)
        if params is None:
            return Exhausted()
        self._untried.use(params)
        return Proposal(params, tag={"index": self._next - 1}, note=note)

    def _fresh(self, trial_id: str) -> tuple[Params | None, str]:
        for _ in range(_SKIPS):
            params = self._point(self._next)
            self._next += 1
            if params in self._untried:
                return params, ""
        rng = random.Random(f"{self.seed}:{trial_id}")
        return self._untried.draw(rng), f"{_SKIPS} points were tried, so this one is random"

    def _point(self, number: int) -> Params:
        if not self._index:
            return self.space.defaults()
        if self._sequence is None:
            from scipy.stats import qmc

            seed = seed_of(self.seed, "sequence")
            self._sequence = qmc.Sobol(len(self._index), scramble=True, rng=seed)
        if self._sequence.num_generated != number:
            self._sequence.reset()
            self._sequence.fast_forward(number)
        units = self._sequence.random(1)[0].tolist()
        return self.space.draw(
            lambda p: p.from_unit(units[self._index[p]]) if p in self._index else p.initial
        )
