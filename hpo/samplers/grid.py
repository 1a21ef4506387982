"""Every point of the grid exactly once, in its order."""

from __future__ import annotations

from collections.abc import Sequence

from hpo.samplers.base import Answer, Exhausted, Proposal, Sampler
from hpo.study import Study
from hpo.trial import TrialRecord


class GridSampler(Sampler):
    """Walks the grid by index; the index lies in the tag, so a restart goes on exactly."""

    exhaustive = True
    ignores_results = True
    takes_given = False

    def __init__(self, study: Study, seed: int) -> None:
        super().__init__(study, seed)
        self._grid = study.space.grid(study.grid)
        self._next = 0

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
        return Proposal(self._grid[index], tag={"index": index})
