"""The verbs that speak to a search while it runs."""

from __future__ import annotations

import argparse
import time

from cluster.progress import typed
from hpo.engines.base import load_engine
from hpo.errors import PlaceError, RunError, UsageError
from hpo.run import Run, open_run

# A chief that was killed is back long before that.
_CHIEF_S = 30.0


def stop(args: argparse.Namespace) -> int:
    """Drains a run, or with ``--now`` stops it; returns once its chief has left."""
    run = open_run(args.runs, args.run)
    if not _drain(run, args.now):
        print(f"run {run.id} is not running")
        return 0
    print(f"stopping {run.id}{'' if args.now else '; running trials may end'}", flush=True)
    while run.chief_lives:
        time.sleep(0.1)
    print(f"go on with: {typed(run, 'resume')}")
    return 0


def _drain(run: Run, immediate: bool) -> bool:
    """Asks the chief to hand out nothing more; False where the run does not go on anyway.

    A `run` that has just begun, or whose chief was killed, has one in a moment.
    """
    deadline = time.monotonic() + _CHIEF_S
    while True:
        goes_on = run.supervised
        try:
            if address := chief_address(run):
                load_engine(run.request.engine).drain(run, address, immediate)
                return True
            if not goes_on:
                return False
            raise _no_chief(run)
        except PlaceError:
            if not goes_on or time.monotonic() > deadline:
                raise
        time.sleep(0.2)


def scale(args: argparse.Namespace) -> int:
    """Wants another number of workers; returns once that is certain to come about."""
    run = open_run(args.runs, args.run)
    deadline = time.monotonic() + _CHIEF_S
    while run.supervised:
        try:
            room = _tell_size(run, args.workers)
        except PlaceError:
            # Who looks after the run starts its chief anew.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
            continue
        short = room is not None and args.workers > room
        waiting = f"; there is room for {room}, the others wait for hosts to join" if short else ""
        print(f"run {run.id}: {args.workers} workers wanted, {run.workers} before{waiting}")
        return 0
    if run.chief_lives:
        raise RunError(
            f"the processes of run {run.id} were started by hand: start another worker, or end "
            "one with SIGTERM"
        )
    raise RunError(
        f"run {run.id} is not running: "
        f"start it with {typed(run, 'resume', '--workers', str(args.workers))}"
    )


def _tell_size(run: Run, workers: int) -> int | None:
    """Tells the chief; answers how many workers there is room for, None for any number.

    Raises PlaceError where there is no chief just now, UsageError beyond the GPUs.
    """
    address = chief_address(run)
    if address is None:
        raise _no_chief(run)
    most = Run(run.folder).most_workers
    if most is not None and workers > max(most, run.workers):
        raise UsageError(
            f"--workers {workers} needs more GPUs than run {run.id} has, which are enough for "
            f"{most}: ask for fewer"
        )
    return load_engine(run.request.engine).scale(run, address, workers)


def _no_chief(run: Run) -> PlaceError:
    return PlaceError(f"no chief of run {run.id} serves: see its log with `launch.py logs`")


def chief_address(run: Run) -> str | None:
    """Where the run's chief serves now, as ``host:port``; None where no chief lives."""
    if not run.chief_lives:
        return None
    reader = run.reader()
    try:
        sessions = reader.sessions()
    finally:
        reader.close()
    return str(sessions[-1]["address"]) if sessions else None
