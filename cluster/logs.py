"""Which file a log is, and following it as it grows."""

from __future__ import annotations

import dataclasses
import pathlib
import sys
import time

from cluster import tables
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


class _Plain:
    """Copies a log's bytes to standard output as they come."""

    def write(self, chunk: bytes) -> None:
        sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()

    def close(self) -> None:
        sys.stdout.buffer.flush()


class _Json:
    """Prints an object for each line of a log, once the line is whole or the last."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._begun = b""

    def write(self, chunk: bytes) -> None:
        *whole, self._begun = (self._begun + chunk).split(b"\n")
        for line in whole:
            self._print(line)

    def close(self) -> None:
        if self._begun:
            self._print(self._begun)
        self._begun = b""

    def _print(self, line: bytes) -> None:
        tables.print_json({"source": self._source, "line": line.decode(errors="replace")})


def show(run: Run, name: str, follow: bool, as_json: bool = False) -> None:
    """Copies a log to standard output; with ``follow`` as it comes, until the run ends.

    A failed trial's error follows its log. Raises RunError, saying why, where there is no
    log yet.
    """
    out = _Json(name) if as_json else _Plain()
    log = _wait_for(run, name) if follow else find_log(run, name)
    if log.path.is_file():
        _copy(run, log, follow, out)
    elif not log.over:
        raise RunError(log.absent)
    else:
        print(f"launch.py: {log.absent}", file=sys.stderr)
    if log.error:
        out.write(f"{log.error}\n".encode())


def _wait_for(run: Run, name: str) -> Log:
    """The log once it is there, or once nothing can write it any more."""
    while True:
        live = is_live(run)
        log = find_log(run, name)
        if not live or log.over or (log.grows and log.path.is_file()):
            return log
        time.sleep(_LOOK_S)


def _copy(run: Run, log: Log, follow: bool, out: _Plain | _Json) -> None:
    with log.path.open("rb") as file:
        while True:
            # Asked before the file is read, so that the last words are not missed.
            goes_on = follow and log.grows and is_live(run)
            while chunk := file.read(_CHUNK):
                out.write(chunk)
            if not goes_on:
                out.close()
                return
            time.sleep(_LOOK_S)
