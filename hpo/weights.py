"""The weights that workers hand to the chief: the best trial's are kept."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import secrets
from collections.abc import Collection, Iterator

from hpo.errors import PlaceError

_SUFFIX = ".weights.h5"


class WeightsStore:
    """Files of weights under one folder, one a trial, each there whole or not at all."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder
        with on_disk(folder):
            folder.mkdir(exist_ok=True)

    @property
    def empty(self) -> bool:
        """Whether nothing was kept so far."""
        return not any(os.scandir(self._folder))

    def path(self, trial_id: str) -> pathlib.Path:
        """Where the weights of a trial lie, if they were wanted."""
        return self._folder / f"{trial_id}{_SUFFIX}"

    def receive(self, trial_id: str) -> Incoming:
        """A file that is being received."""
        return Incoming(self.path(trial_id))

    def keep_only(self, trial_ids: Collection[str]) -> None:
        """Removes the weights of every other trial, and what was left half received of them.

        What is just being received of these stays: trials end at the same time.
        """
        for path in self._folder.iterdir():
            if path.name.partition(".")[0] not in trial_ids:
                path.unlink(missing_ok=True)


class Incoming:
    """Weights on their way in. Raises PlaceError if the disk refuses."""

    def __init__(self, target: pathlib.Path) -> None:
        self._target = target
        self._draft = target.with_name(f"{target.name}.{secrets.token_hex(4)}")
        self._digest = hashlib.sha256()
        with on_disk(self._draft):
            self._file = self._draft.open("wb")

    def write(self, data: bytes) -> None:
        """Takes one chunk."""
        self._digest.update(data)
        with on_disk(self._draft):
            self._file.write(data)

    def finish(self, sha256: str) -> bool:
        """Puts the file in place; False, and no file, where the checksum is another."""
        if self._digest.hexdigest() != sha256:
            self.discard()
            return False
        with on_disk(self._draft):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._draft.replace(self._target)
        return True

    def discard(self) -> None:
        """Forgets what came so far."""
        with contextlib.suppress(OSError):
            self._file.close()
        self._draft.unlink(missing_ok=True)


@contextlib.contextmanager
def on_disk(path: pathlib.Path) -> Iterator[None]:
    """What the disk refuses while ``path`` is written, as a PlaceError."""
    try:
        yield
    except OSError as error:
        why = error.strerror or error
        raise PlaceError(f"cannot write {path}: {why}: free space there") from error
