"""How the trials of a search are run, whoever runs them: what all share, and what each has."""

from __future__ import annotations

import dataclasses
import pathlib

from hpo.link import TrialOrder
from hpo.schedule import Schedule
from hpo.settings import Settings
from hpo.study import Study
from hpo.trial import Params


@dataclasses.dataclass(frozen=True)
class Task:
    """An attempt that was handed out: what is its own.

    ``epochs`` None leaves it to the terms. With ``has_checkpoint`` there is a checkpoint to
    go on from, which lies elsewhere.
    """

    trial_id: str
    attempt: int
    params: Params
    seed: int
    epochs: int | None
    has_checkpoint: bool


@dataclasses.dataclass(frozen=True)
class Terms:
    """What all trials of a search have in common."""

    study: Study
    split_seed: int
    epochs: int | None
    train_examples: int | None
    schedule: Schedule
    settings: Settings

    def order(self, task: Task, checkpoint: pathlib.Path | None) -> TrialOrder:
        """What the trial's process is told, with the ``checkpoint`` as a file of its host."""
        return TrialOrder(
            trial_id=task.trial_id,
            params=task.params,
            seed=task.seed,
            split_seed=self.split_seed,
            objective=self.study.objective,
            direction=self.study.direction,
            epochs=task.epochs or self.epochs,
            train_examples=self.train_examples,
            space=self.study.space,
            schedule=self.schedule,
            checkpoint=checkpoint,
            settings=self.settings,
        )
