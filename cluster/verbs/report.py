"""The verb `report`: what a run, several, or a benchmark came to, with pictures."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from cluster import tables
from hpo.errors import UsageError
from hpo.run import open_run

if TYPE_CHECKING:
    from hpo.benchmark.document import Document


def report(args: argparse.Namespace) -> int:
    """Writes a page, Markdown, JSON and pictures into ``--out``, and says where."""
    from hpo.benchmark.folder import is_benchmark

    named = [name for name in args.run if is_benchmark(args.runs, name)]
    if named and len(args.run) > 1:
        raise UsageError(f"{named[0]} is a benchmark: report one at a time")
    document = _of_benchmark(args, named[0]) if named else _of_runs(args)
    default = args.runs / args.run[0] / "report"
    paths = document.write(args.out or default)
    if args.json:
        tables.print_json(document.data)
    else:
        print("\n".join(str(path) for path in paths))
    return 0


def _of_benchmark(args: argparse.Namespace, name: str) -> Document:
    from hpo.benchmark.assemble import assemble
    from hpo.benchmark.folder import Folder

    return assemble(Folder(args.runs / name))


def _of_runs(args: argparse.Namespace) -> Document:
    from cluster.searches import trace_of_run
    from hpo.benchmark.run_report import of_runs

    runs = [open_run(args.runs, name) for name in dict.fromkeys(args.run)]
    for run in runs[1:]:
        if run.study.objective != runs[0].study.objective or run.study.space != runs[0].study.space:
            raise UsageError(
                f"runs {runs[0].id} and {run.id} search other spaces or another objective: "
                "report them one at a time"
            )
    return of_runs([(run, trace_of_run(args.runs, run.id)) for run in runs])
