"""Which file a log is, and following it as it grows."""

from __future__ import annotations

import dataclasses
import pathlib
import sys
import time

from hpo.errors import RunError
from hpo.registry import suggest
from hpo.run import Run
from hpo.status import is_live
from hpo.trial import Failure, TrialRecord, TrialState

CHIEF = "chief"
_LOOK_S = 0.5
_CHUNK = 1 << 16


@dataclasses.dataclass(frozen=True)
class Log:
    """A log's file; ``absent`` says why there may be none.

    That of a process grows. A trial's arrives as a whole, and is all there is to come once
    the attempt is ``over``; ``error`` is what it failed with.
    """

    path: pathlib.Path
    absent: str
    grows: bool = False
    over: bool = False
    error: str = ""


def find_log(run: Run, name: str) -> Log:
    """The log of the chief, a worker or a trial's latest attempt; RunError for other names."""
    reader = run.reader()
    try:
        trials = {a.record.trial_id: a.record for a in reader.attempts(history=False)}
        joined = [row.info.worker_id for row in reader.workers()]
    finally:
        reader.close()
    if name in trials:
        return _of_trial(run, trials[name])
    written = [path.stem for path in run.logs.glob("*.log") if not path.stem.startswith("trial-")]
    roles = {CHIEF, *joined, *written}
    if name in roles:
        return Log(
            run.logs / f"{name}.log",
            f"{name} of run {run.id} has no log here: it has not started, or was started by hand "
            "and writes where that was done",
            grows=True,
        )
    near = suggest(name, roles)
    if trials and not near.startswith("did"):
        near += f", and the trials {min(trials)} to {max(trials)}"
    raise RunError(f"run {run.id} has no log {name!r}: {near}")


def _of_trial(run: Run, record: TrialRecord) -> Log:
    what = f"attempt {record.attempt} of trial {record.trial_id}"
    if record.state is TrialState.WAITING:
        absent = f"{what} waits for a worker: its log arrives when it has ended"
    elif record.state is TrialState.RUNNING and is_live(run):
        absent = f"{what} runs on {record.worker}: its log arrives when it has ended (-f waits)"
    elif record.state is TrialState.RUNNING:
        absent = f"{what} was cut off when the run stopped: its log went with it"
    elif record.failure is Failure.PREEMPTED:
        absent = f"{what} was lost with its worker, and its log too"
    else:
        absent = f"{what} printed nothing"
    path = run.trial_log(record.trial_id, record.attempt)
    return Log(path, absent, over=record.state.ended, error=record.error or "")


def show(run: Run, name: str, follow: bool) -> None:
    """Copies a log to standard output; with ``follow`` as it comes, until the run ends.

    A failed trial's error follows its log. Raises RunError, saying why, where there is no
    log yet.
    """
    log = _wait_for(run, name) if follow else find_log(run, name)
    if log.path.is_file():
        _copy(run, log, follow)
    elif not log.over:
        raise RunError(log.absent)
    else:
        print(f"launch.py: {log.absent}", file=sys.stderr)
    if log.error:
        print(log.error, flush=True)


def _wait_for(run: Run, name: str) -> Log:
    """The log once it is there, or once nothing can write it any more."""
    while True:
        live = is_live(run)
        log = find_log(run, name)
        if not live or log.over or (log.grows and log.path.is_file()):
            return log
        time.sleep(_LOOK_S)


def _copy(run: Run, log: Log, follow: bool) -> None:
    with log.path.open("rb") as file:
        while True:
            # Asked before the file is read, so that the last words are not missed.
            goes_on = follow and log.grows and is_live(run)
            while chunk := file.read(_CHUNK):
                sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
            if not goes_on:
                return
            time.sleep(_LOOK_S)
