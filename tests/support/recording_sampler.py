"""What the tests of the coordinator share."""

from __future__ import annotations

from hpo.samplers.random import RandomSampler
from hpo.study import Study
from hpo.trial import TrialRecord


class Attentive(RandomSampler):
    """Remembers what it was told."""

    def __init__(self, study: Study, seed: int) -> None:
        super().__init__(study, seed)
        self.heard: list[TrialRecord] = []

    def told(self, record: TrialRecord) -> None:
        self.heard.append(record)
