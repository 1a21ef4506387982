"""What passes between the search and the actors in which its trials run."""

from __future__ import annotations

import dataclasses

from hpo.schedule import Schedule
from hpo.study import Study
from hpo.trial import Params
from hpo.trial_process import Message

# The one key of our own in what Ray calls a trial's config, and in its results.
ORDER, SAID = "order", "said"


@dataclasses.dataclass(frozen=True)
class Terms:
    """What every actor of a search must know: the study, and how each trial is to be run.

    ``source`` is the content of the study's file, for hosts where ``path`` is another one.
    ``threads`` is how many a trial may use.
    """

    study: Study
    path: str
    source: bytes
    split_seed: int
    epochs: int | None
    train_examples: int | None
    schedule: Schedule
    precision: str | None
    threads: int


@dataclasses.dataclass(frozen=True)
class Order:
    """An attempt to run; the rest of it stands in the terms."""

    trial_id: str
    attempt: int
    params: Params
    seed: int
    epochs: int | None
    has_checkpoint: bool

    def __repr__(self) -> str:
        # Ray makes a tag from it, for each trial.
        return f"{self.trial_id}-{self.attempt}"


@dataclasses.dataclass(frozen=True)
class Silent:
    """The trial has said nothing for a while; its actor lives."""


@dataclasses.dataclass(frozen=True)
class CheckpointWanted:
    """The attempt goes on from a checkpoint, which the actor waits for."""


@dataclasses.dataclass(frozen=True)
class Said:
    """What an actor answers to each step that Ray asks it for.

    That the trial is over is for the leader to say: Ray ends whatever calls itself done
    without a word to its scheduler. ``device`` is what its trials run on, ``log`` the end of
    the output of a trial that has ended. A file that the ``message`` names is then to be
    taken part by part.
    """

    message: Message | Silent | CheckpointWanted
    device: str
    log: bytes = b""
