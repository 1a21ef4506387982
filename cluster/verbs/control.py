"""The verb that ends a search early."""

from __future__ import annotations

import argparse
import time

from cluster.progress import typed
from hpo.engines.base import load_engine
from hpo.run import Run, open_run


def stop(args: argparse.Namespace) -> int:
    """Drains a run, or with ``--now`` stops it; returns once its chief has left."""
    run = open_run(args.runs, args.run)
    address = chief_address(run)
    if address is None:
        print(f"run {run.id} is not running")
        return 0
    load_engine(run.request.engine).drain(run, address, immediate=args.now)
    print(f"stopping {run.id}{'' if args.now else '; running trials may end'}", flush=True)
    while run.chief_lives:
        time.sleep(0.1)
    print(f"go on with: {typed(run, 'resume')}")
    return 0


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
