"""The checkpoints that workers hand to the chief: the newest of each trial, under a cap.

A checkpoint is only ever a saving of time. So whatever cannot be kept is let go, and the trial
starts anew; nothing here ends a search but a disk that is full for the ledger too.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

from hpo.weights import Incoming, on_disk

_SUFFIX = ".checkpoint"


class CheckpointStore:
    """Files ``<trial>.<epoch>.checkpoint`` in one folder, each there whole or not at all."""

    def __init__(self, folder: pathlib.Path, cap_bytes: float) -> None:
        self._folder = folder
        self._cap_bytes = cap_bytes
        with on_disk(folder):
            folder.mkdir(exist_ok=True)
            for path in folder.iterdir():
                # What a chief that was killed had received half.
                if not path.name.endswith(_SUFFIX):
                    path.unlink()

    def receive(self, trial_id: str, epoch: int) -> Incoming:
        """A checkpoint that is being received."""
        return Incoming(self._folder / f"{trial_id}.{epoch}{_SUFFIX}")

    @property
    def empty(self) -> bool:
        """Whether nothing was kept so far."""
        return not any(os.scandir(self._folder))

    def trials(self) -> list[str]:
        """The trials that have a checkpoint."""
        return list(self._found())

    def latest(self, trial_id: str) -> pathlib.Path | None:
        """The trial's newest checkpoint."""
        # Not a pattern: this is asked for each trial that is handed out.
        found = [name for name in os.listdir(self._folder) if name.startswith(f"{trial_id}.")]
        whole = (self._folder / name for name in found if name.endswith(_SUFFIX))
        return max(whole, key=_epoch, default=None)

    def keep(self, trial_ids: Sequence[str]) -> list[str]:
        """Keeps the newest checkpoint of these trials, the most precious first, under the cap.

        Answers the trials whose checkpoints had to go for want of room.
        """
        found = self._found()
        size, refused = 0, []
        for trial_id in trial_ids:
            if trial_id not in found:
                continue
            newest = max(found[trial_id], key=_epoch)
            needed = newest.stat().st_size
            if size + needed > self._cap_bytes:
                refused.append(trial_id)
            else:
                size += needed
                found[trial_id].remove(newest)
        for path in (path for paths in found.values() for path in paths):
            path.unlink(missing_ok=True)
        return refused

    def _found(self) -> dict[str, list[pathlib.Path]]:
        """What lies there, by trial."""
        found: dict[str, list[pathlib.Path]] = {}
        for path in self._folder.glob(f"*{_SUFFIX}"):
            found.setdefault(path.name.split(".")[0], []).append(path)
        return found


def _epoch(path: pathlib.Path) -> int:
    return int(path.name.split(".")[1])
