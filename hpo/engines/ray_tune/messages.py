"""What passes between the search and the actors in which its trials run."""

from __future__ import annotations

import dataclasses

from hpo.terms import Task, Terms
from hpo.trial_process import Message

# The one key of our own in what Ray calls a trial's config, and in its results.
ORDER, SAID = "order", "said"


@dataclasses.dataclass(frozen=True)
class Setup:
    """What every actor of a search must know before its first trial.

    ``source`` is the content of the study's file, for hosts where ``path`` is another one.
    ``threads`` is how many a trial may use, ``gpus`` how many GPUs, or which part of one, it has.
    """

    terms: Terms
    path: str
    source: bytes
    threads: int
    gpus: float


@dataclasses.dataclass(frozen=True, repr=False)
class Order(Task):
    """An attempt to run, as what Ray calls a trial's config."""

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
