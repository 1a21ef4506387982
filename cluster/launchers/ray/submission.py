"""Starting a search on a Ray cluster, or attaching to it: never twice."""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Sequence

from cluster.launchers.ray import frames, parcel
from cluster.launchers.ray.connection import Cluster
from cluster.launchers.ray.inside import command, folder_of, never_sent
from cluster.launchers.ray.jobs import REFUSED, Job, job_named, jobs_of, name, notes
from hpo.errors import PlaceError, RunError, TuneFleetError, UsageError
from hpo.run import SearchRequest
from hpo.status import DONE

# What is wrong with a study or a cluster shows by then; a busy cluster is nothing wrong.
_FIRST_LOOK_S = 180.0
_STOP_S = "RAY_JOB_STOP_WAIT_TIME_S"
# How much longer Ray may wait than running trials may.
_BEYOND_GRACE_S = 30.0


@dataclasses.dataclass(frozen=True)
class Start:
    """One start of a run: what ``launch.py`` is told there, and what goes along.

    ``files`` are those of the parcel, by their place in it; None where it was sent before.
    ``runs`` is the folder of runs below the head's home.
    """

    run_id: str
    handle: str
    words: Sequence[str]
    runs: str
    python: str
    request: SearchRequest | None
    grace_s: float
    files: dict[str, pathlib.Path] | None = None

    @property
    def command(self) -> str:
        """The line that the job runs."""
        words = ["lead", self.handle, self.runs, self.run_id, *self.words]
        folder = None if self.files is not None else folder_of(self.runs, self.run_id)
        return command(self.python, words, folder)

    @property
    def environment(self) -> dict[str, str]:
        """Variables of the job: `ray job stop` too leaves trials their time."""
        return {_STOP_S: f"{self.grace_s + _BEYOND_GRACE_S:.0f}"}


def submit(cluster: Cluster, start: Start, wait: bool = True) -> bool:
    """Starts the run, where it does not run and is not over; False where it was so already.

    With ``wait`` it returns once the search has begun. Raises RunError where the id is another
    request's, and whatever the search was refused for.
    """
    last = _last(cluster, start)
    number, made = last.number if last else 1, False
    if last is None or (last.ended and last.state != DONE):
        number = last.number + 1 if last else 1
        made = begin(cluster, start, number)
        if not made:
            # Somebody else has just done so, perhaps by another request.
            _last(cluster, start)
    if wait:
        await_begun(cluster, name(start.run_id, number))
    return made


def begin(cluster: Cluster, start: Start, number: int) -> bool:
    """Starts the job of this number; False where another call has just done so."""
    job = name(start.run_id, number)
    noted = notes(start.run_id, start.runs, start.python, start.request)
    if start.files is None:
        return cluster.submit(job, start.command, noted, environment=start.environment)
    with parcel.packed(start.files) as path:
        return cluster.submit(job, start.command, noted, path, start.environment)


def _last(cluster: Cluster, start: Start) -> Job | None:
    """The latest start of the run; RunError where that was by another request."""
    found = jobs_of(cluster, start.run_id)
    last = found[-1] if found else None
    asked = next((job.request for job in reversed(found) if job.request and not job.refused), None)
    if asked and start.request and (differing := start.request.differences(asked)):
        raise RunError(
            f"run {start.run_id!r} was made by another request (other {', '.join(differing)}): "
            "give another --id, or the same request"
        )
    return last


def await_begun(cluster: Cluster, job_name: str) -> None:
    """Returns once a start of a run has begun, is over, or takes long.

    Raises what ``launch.py`` said there, where that was refused or failed before it began.
    """
    deadline, answered = time.monotonic() + _FIRST_LOOK_S, False
    for line in frames.lines(cluster.log(job_name)):
        frame = frames.parse(line) if line else None
        if (frame and frame.kind == frames.BEGUN) or time.monotonic() > deadline:
            return
        answered = answered or bool(frame and frame.kind == frames.STATUS)
    _raise_refusal(cluster, job_named(cluster, job_name), answered)


def _raise_refusal(cluster: Cluster, job: Job, answered: bool) -> None:
    """Raises why a job ended, unless it did as a search that has begun may.

    ``answered`` says whether ``launch.py`` left there by itself.
    """
    if job.lacks_project:
        raise never_sent(cluster, job.run_id, job.runs)
    if job.exit_code == REFUSED:
        raise _Refused(job.words or "the search was refused")
    if job.status == "STOPPED":
        raise RunError(f"run {job.run_id!r} was stopped before it began: submit it again")
    if job.status == "FAILED" and not (answered and job.exit_code in (1, 75, 130)):
        if job.exit_code == 127:
            named = job.python or "such interpreter any more"
            raise UsageError(
                f"the cluster has no {named}: give --python, its interpreter's path there"
            )
        raise PlaceError(f"the search at {cluster.where} did not begin: {job.words}")


class _Refused(TuneFleetError):
    """What ``launch.py`` there said, as if it had been said here."""

    exit_status = REFUSED
