"""The verb that opens TensorBoard."""

from __future__ import annotations

import argparse
import sys
import time

from hpo.errors import PlaceError, RunError, UsageError
from hpo.run import Run, open_run

_LOOK_S = 0.5


def tensorboard(args: argparse.Namespace) -> int:
    """Serves the runs' HParams until Ctrl-C."""
    from hpo.tensorboard.server import serve

    deadline = time.monotonic() + args.wait
    runs = [_open(args, run_id, deadline) for run_id in dict.fromkeys(args.run)]
    _check_alike(runs)
    for run in runs:
        _prepare(run, args)
    with serve({run.id: run.tensorboard for run in runs}, args.host, args.port) as server:
        try:
            print(f"{server.url}\nCtrl-C ends it", flush=True)
            status = server.wait()
        except KeyboardInterrupt:
            return 0
    raise PlaceError(f"TensorBoard ended by itself with status {status}: start it again")


def _open(args: argparse.Namespace, run_id: str, deadline: float) -> Run:
    """The run, waited for until ``deadline``; RunError where it does not come."""
    while True:
        is_late = time.monotonic() >= deadline
        try:
            run = open_run(args.runs, run_id)
            # Beside a chief its files are waited for too.
            if is_late or not args.beside or run.tensorboard.is_dir():
                return run
        except RunError:
            if is_late:
                raise
        time.sleep(_LOOK_S)


def _prepare(run: Run, args: argparse.Namespace) -> None:
    """Sees to it that the run's files are its own and whole; they may be written anew for that."""
    from hpo.tensorboard.upkeep import catch_up, check, rebuild

    if args.rebuild:
        aside = rebuild(run)
        _note(f"run {run.id}: everything was written anew from its ledger")
        if aside:
            _note(f"run {run.id}: what was not of this run lies in {aside}")
    else:
        check(run)
        # A chief that comes meanwhile does the same, and must find nobody in its way.
        if not args.beside and catch_up(run):
            _note(f"run {run.id}: what TensorBoard's files lacked was written from its ledger")
    if not any(run.tensorboard.glob("trial-*")):
        _note(f"run {run.id} has no trial yet: its table is empty until one starts")


def _note(text: str) -> None:
    # Standard output begins with the address.
    print(text, file=sys.stderr, flush=True)


def _check_alike(runs: list[Run]) -> None:
    """Raises UsageError for runs that one table would show wrongly.

    Its columns are those of one run: what another run has besides would be left out in
    silence, which is worse than two tables.
    """
    first, *others = runs
    for run in others:
        if (run.study.space, run.study.objective) != (first.study.space, first.study.objective):
            raise UsageError(
                f"runs {first.id} and {run.id} differ in their space or their objective, and one "
                "table has the columns of one: open each by itself, the second with another --port"
            )
