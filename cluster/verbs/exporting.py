"""The verb that hands the winner over: `export`."""

from __future__ import annotations

import argparse
import os
import sys

from cluster import tables
from cluster.verbs.reading import completed
from hpo import env
from hpo.run import open_run
from hpo.status import is_live
from hpo.winner import winner_of


def export(args: argparse.Namespace) -> int:
    """Writes the winner's model as a .keras file, and beside it how it came about."""
    run = open_run(args.runs, args.run)
    winner = completed(run, winner_of(run))
    # TensorFlow stays out of this process, and numpy too until it is needed.
    from hpo.export import export_winner, sidecar_of

    environ = {**os.environ, **env.data_variables(args.data_dir)}
    goes_on = is_live(run)
    story = export_winner(run, winner, args.out, environ, args.debug)
    if goes_on:
        print(f"launch.py: run {run.id} goes on: this is its best so far", file=sys.stderr)
    rows = [
        ("model", str(args.out)),
        ("story", str(sidecar_of(args.out))),
        ("trial", winner.record.trial_id),
        (run.study.objective, tables.number(story["value"])),
        ("test", tables.assignments(story["test"])),
        ("again", story["command"]),
    ]
    tables.print_pairs(rows)
    return 0
