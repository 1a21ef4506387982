"""Programs on the head of a Ray cluster: what they say is said here, or taken apart."""

from __future__ import annotations

import contextlib
import shlex
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from typing import BinaryIO

from cluster.launchers.ray import frames
from cluster.launchers.ray.connection import Cluster
from cluster.launchers.ray.frames import Frame
from cluster.launchers.ray.jobs import Job, lacks_project, reading_name
from cluster.launchers.ray.there import INTERPRETER, SENT
from hpo.errors import PlaceError, RunError

_END_S = 5.0
_LOOK_S = 0.2
_MODULE = "cluster.launchers.ray.there"
# The interpreter of a run whose jobs the head has forgotten: as it is noted beside the run.
AS_BEFORE = ""


def command(python: str, words: Sequence[str], folder: str | None = None) -> str:
    """The shell's line that does ``words`` there: in ``folder``, below the home, if it is there.

    Elsewhere a project that is installed there does it.
    """
    line = f"{_interpreter(python)} {shlex.join(['-m', _MODULE, *words])}"
    if folder is None:
        return f"exec {line}"
    return f'cd "$HOME" && {{ cd {shlex.quote(folder)} 2>/dev/null || true; }} && exec {line}'


def _interpreter(python: str) -> str:
    """A path that is not whole begins at the home there."""
    if python == AS_BEFORE:
        return f'"$(cat {INTERPRETER} 2>/dev/null || echo python)"'
    if python.startswith("/") or "/" not in python:
        return shlex.quote(python)
    return f'"$HOME"/{shlex.quote(python.removeprefix("~/"))}'


def folder_of(runs: str, run_id: str) -> str:
    """Where on the head lies what was sent with a run."""
    return f"{runs}/{SENT}/{run_id}"


class Inside:
    """Where a run lies on a cluster, and who may read it there."""

    def __init__(self, cluster: Cluster, handle: str, run_id: str, runs: str, python: str) -> None:
        self._cluster, self._handle = cluster, handle
        self.run_id, self.runs, self.python = run_id, runs, python

    def do(
        self, words: Sequence[str], out: BinaryIO | None = None, said: BinaryIO | None = None
    ) -> int:
        """Does ``launch.py`` with ``words`` there and copies what it says; its exit status."""
        sys.stdout.flush()
        status = None
        targets = {frames.OUT: out or sys.stdout.buffer, frames.SAID: said or sys.stderr.buffer}
        with self.telling("do", *words) as told:
            for frame in told:
                if frame and frame.kind == frames.STATUS:
                    status = int(frame.data)
                elif frame:
                    targets[frame.kind].write(frame.data)
                    targets[frame.kind].flush()
        assert status is not None
        return status

    @contextlib.contextmanager
    def telling(self, what: str, *words: str) -> Iterator[Iterator[Frame | None]]:
        """What is said by a job of its own, which ends with it; None after each quiet second.

        Raises PlaceError where it ended without an exit status, RunError where nothing that
        could read the run is there.
        """
        told = self._frames(what, words)
        try:
            yield told
        finally:
            told.close()

    def _frames(self, what: str, words: Sequence[str]) -> Generator[Frame | None, None, None]:
        name = reading_name(self.run_id)
        line = command(
            self.python,
            [what, self._handle, self.runs, *words],
            folder_of(self.runs, self.run_id),
        )
        self._cluster.submit(name, line)
        rest: list[str] = []
        answered = False
        try:
            for text in frames.lines(self._cluster.log(name)):
                if text is None:
                    yield None
                elif frame := frames.parse(text):
                    answered = answered or frame.kind == frames.STATUS
                    yield frame
                else:
                    rest = [*rest[-20:], text]
        finally:
            forget(self._cluster, name)
        if not answered:
            raise self._why(rest)

    def _why(self, said: Sequence[str]) -> PlaceError | RunError:
        words = next((line for line in reversed(said) if line.strip()), "it did not say why")
        if lacks_project(words):
            return never_sent(self._cluster, self.run_id, self.runs)
        python = self.python or "its interpreter"
        return PlaceError(f"{python} on the head of {self._cluster.where} failed: {words}")


def never_sent(cluster: Cluster, run_id: str, runs: str) -> RunError:
    """What to say where nothing is there that could know of a run."""
    return RunError(
        f"no run {run_id!r} was sent to {cluster.where} ({runs} on its head), and the project is "
        "not installed there: see `launch.py list --on ray`"
    )


def inside(cluster: Cluster, handle: str, run_id: str, job: Job | None, runs: str) -> Inside:
    """Where the run of ``job`` is read; without one, as it would have been started."""
    if job:
        return Inside(cluster, handle, run_id, job.runs, job.python)
    return Inside(cluster, handle, run_id, runs, AS_BEFORE)


def forget(cluster: Cluster, name: str) -> None:
    """A job that read is none of those to be listed."""
    deadline = time.monotonic() + _END_S
    with contextlib.suppress(PlaceError):
        while not cluster.delete(name):
            cluster.stop(name)
            if time.monotonic() > deadline:
                return
            time.sleep(_LOOK_S)
