"""Independent random points, none of them twice."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

from hpo.samplers.base import Answer, Exhausted, Proposal, Sampler
from hpo.study import Study
from hpo.trial import Params, TrialRecord

# So many refused draws in a row mean that what they are drawn from is nearly used up.
_DRAWS = 1000


def _key(params: Params) -> tuple[tuple[str, object], ...]:
    return tuple(params.items())


class RandomSampler(Sampler):
    """Draws each active parameter from its own distribution, as KerasTuner's random does.

    A point depends on (seed, trial id) and on the points of earlier trials, which it does
    not repeat: neither the workers nor the results change it.
    """

    ignores_results = True

    def __init__(self, study: Study, seed: int) -> None:
        super().__init__(study, seed)
        self._used: set[tuple[tuple[str, object], ...]] = set()
        self._size = self.space.size

    def asked(self, record: TrialRecord) -> None:
        self._used.add(_key(record.params))

    def given(self, trial_id: str, params: Params) -> None:
        self._used.add(_key(params))

    def ask(self, trial_id: str, pending: Sequence[TrialRecord]) -> Answer:
        if self._size is not None and len(self._used) >= self._size:
            return Exhausted()
        params = self._fresh(random.Random(f"{self.seed}:{trial_id}"))
        self._used.add(_key(params))
        return Proposal(params)

    def _fresh(self, rng: random.Random) -> Params:
        draws = itertools.count() if self._size is None else range(_DRAWS)
        for _ in draws:
            params = self.space.sample(rng)
            if _key(params) not in self._used:
                return params
        return self._evenly(rng)

    def _evenly(self, rng: random.Random) -> Params:
        """A point that is left of a finite space, of which the likely ones are used up."""
        grid = self.space.grid()
        for _ in range(_DRAWS):
            params = grid[rng.randrange(grid.size)]
            if _key(params) not in self._used:
                return params
        # Now so few are left that the grid is hardly longer than what was tried already.
        return rng.choice([params for params in grid if _key(params) not in self._used])
