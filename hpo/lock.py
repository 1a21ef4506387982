"""Who may write: a lock that no crash leaves behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import time

from hpo.errors import PlaceError, RunError


class Lock:
    """An exclusive lock on a file; it goes with the process that holds it, however that ends."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._fd: int | None = None

    def acquire(self, patience_s: float = 1.0) -> None:
        """Raises RunError if another process holds the lock for longer than ``patience_s``."""
        try:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise PlaceError(f"cannot write {self._path}: {error.strerror}") from error
        deadline = time.monotonic() + patience_s
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            # A reader that looks whether the lock is held holds it for a moment itself.
            if time.monotonic() > deadline:
                self.release()
                raise RunError(
                    f"run {self._path.parent.name} is in use by another process: "
                    "wait for its end, or stop it with `launch.py stop`"
                )
            time.sleep(0.02)

    def release(self) -> None:
        """Lets the next holder in."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    @staticmethod
    def held(path: pathlib.Path) -> bool:
        """Whether some process holds the lock now."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False
