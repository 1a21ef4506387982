"""Every point of the grid exactly once, in its order or in a random one."""

from __future__ import annotations

from collections.abc import Sequence

from hpo.samplers.base import Answer, Exhausted, Proposal, Sampler, seed_of
from hpo.study import Study
from hpo.trial import TrialRecord

_ROUNDS = 4


class GridSampler(Sampler):
    """Walks the grid by index; the index lies in the tag, so a restart goes on exactly.

    Part of a grid in its order is the part that is nearest to the low end of what was
    declared first; whoever has time for no more asks for a random order by :meth:`shuffle`.
    """

    exhaustive = True
    ignores_results = True
    takes_given = False

    def __init__(self, study: Study, seed: int) -> None:
        super().__init__(study, seed)
        self._grid = study.space.grid(study.grid)
        self._next = 0
        self._shuffled = False

    def shuffle(self) -> None:
        self._shuffled = True

    @classmethod
    def check(cls, study: Study) -> None:
        study.space.grid(study.grid)

    @classmethod
    def limit(cls, study: Study) -> int | None:
        return study.space.grid(study.grid).size

    def asked(self, record: TrialRecord) -> None:
        self._next = max(self._next, int(record.tag["index"]) + 1)

    def ask(self, trial_id: str, pending: Sequence[TrialRecord]) -> Answer:
        if self._next >= self._grid.size:
            return Exhausted()
        index, self._next = self._next, self._next + 1
        place = shuffled(index, self._grid.size, self.seed) if self._shuffled else index
        return Proposal(self._grid[place], tag={"index": index})


def shuffled(index: int, size: int, seed: int) -> int:
    """Where the ``index``-th of ``size`` things lies in a random order that ``seed`` draws.

    A Feistel network over the bits of an index, walked until it comes back below ``size``:
    each order is a permutation, and nothing is kept, however many things there are.
    """
    half = max((size - 1).bit_length() + 1, 2) // 2
    mask = (1 << half) - 1
    while True:
        left, right = index >> half, index & mask
        for number in range(_ROUNDS):
            left, right = right, left ^ (seed_of(seed, f"{number}/{right}") & mask)
        index = left << half | right
        if index < size:
            return index
