"""The trials that wait for a worker, in order."""

from __future__ import annotations

import collections
from collections.abc import Collection

from hpo.protocol import WorkerInfo

# What trials share whose memory runs out together: a host, or one of its GPUs.
Place = tuple[str, str]
# Where no worker is: a trial that is to be alone there may be so anywhere.
NOWHERE: Place = ("", "")


def place_of(info: WorkerInfo) -> Place:
    """Where a worker's trials run."""
    return info.host, info.device if info.gpus else ""


class Waiting:
    """A queue. A trial that ran out of memory waits until its place has nothing else to do.

    Meanwhile that place gets nothing new, or the trial would wait for ever. Where the place
    has no worker any more, any other will do.
    """

    def __init__(self) -> None:
        self._queue: collections.deque[str] = collections.deque()
        self._alone: dict[str, Place] = {}

    def __len__(self) -> int:
        """How many can be handed out to whoever asks."""
        return len(self._queue)

    @property
    def choosy(self) -> bool:
        """Whether a trial waits that may not go to everybody."""
        return bool(self._alone)

    def add(self, trial_id: str) -> None:
        """The trial waits behind all others."""
        self._queue.append(trial_id)

    def add_first(self, trial_id: str) -> None:
        """The trial waits ahead of all others."""
        self._queue.appendleft(trial_id)

    def add_alone(self, trial_id: str, place: Place) -> None:
        """The trial waits until nothing else runs at ``place``."""
        self._alone[trial_id] = place

    def first(self) -> str | None:
        """The trial for whoever asks, where none is choosy."""
        return self._queue.popleft() if self._queue else None

    def take(
        self,
        place: Place,
        staffed: Collection[Place],
        busy: Collection[Place],
        reserved: Collection[Place],
    ) -> str | None:
        """The trial for a worker at ``place``; None if there is none for it just now.

        ``staffed`` are the places with workers, ``busy`` those where trials run, and
        ``reserved`` those where one runs that is to be alone.
        """
        if place in reserved:
            return None
        for trial_id, own in self._alone.items():
            if own == place or own not in staffed:
                if place in busy:
                    return None
                del self._alone[trial_id]
                return trial_id
        return self.first()
