"""What passes between a trial and whoever runs it: the order, what is said meanwhile, the end."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Protocol

from hpo.schedule import NEVER, Schedule
from hpo.settings import Settings
from hpo.space import SearchSpace
from hpo.trial import Answer, Direction, Failure, Params, Report


class Link(Protocol):
    """What a trial says to whoever runs it."""

    def report(self, report: Report) -> Answer:
        """After each step; answers whether to go on."""

    def wanted(self, value: float) -> bool:
        """At the end, with the best value; answers whether the weights are wanted."""

    def saved(self, path: pathlib.Path, epoch: int) -> None:
        """A checkpoint after ``epoch`` lies at ``path``, which is the listener's to remove."""

    def resumed(self, epoch: int) -> None:
        """An earlier attempt's checkpoint fits: the trial goes on after ``epoch``."""


@dataclasses.dataclass(frozen=True)
class TrialOrder:
    """All that a trial process must know of its trial besides the study's file.

    ``seed`` is the trial's own, ``split_seed`` the run's: every trial of a run validates
    on the same examples. It goes on from ``checkpoint``, if there is one that fits.
    ``settings`` are the run's (see hpo.settings).
    """

    trial_id: str
    params: Params
    seed: int
    split_seed: int
    objective: str
    direction: Direction
    epochs: int | None
    train_examples: int | None
    space: SearchSpace
    schedule: Schedule = NEVER
    checkpoint: pathlib.Path | None = None
    settings: Settings = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a trial ended in its process: a failure with its story, or None for completed.

    One that is ``suspended`` has not ended: another attempt goes on from its checkpoint.
    """

    failure: Failure | None = None
    error: str | None = None
    weights: pathlib.Path | None = None
    suspended: bool = False
