"""The verb `report`: what a run, several, or a benchmark came to, with pictures."""

from __future__ import annotations

import argparse
import pathlib
import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cluster import tables
from cluster.launchers.base import launcher_of, parse_handle
from hpo.errors import UsageError
from hpo.run import Run, open_run

if TYPE_CHECKING:
    from hpo.benchmark.document import Document


def report(args: argparse.Namespace) -> int:
    """Writes a page, Markdown, JSON and pictures into ``--out``, and says where."""
    from hpo.benchmark.folder import is_benchmark

    named = [name for name in args.run if is_benchmark(args.runs, name)]
    if named and len(args.run) > 1:
        raise UsageError(f"{named[0]} is a benchmark: report one at a time")
    document = _of_benchmark(args, named[0]) if named else _of_runs(args)
    default = args.runs / args.run[0].rpartition("/")[2] / "report"
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

    with tempfile.TemporaryDirectory() as folder:
        copies = pathlib.Path(folder)
        runs = [_opened(args, name, copies) for name in dict.fromkeys(args.run)]
        _check_alike(runs)
        return of_runs([(run, trace_of_run(run)) for run in runs])


def _opened(args: argparse.Namespace, name: str, copies: pathlib.Path) -> Run:
    """The run ``name``; of one elsewhere a copy of its ledger, below ``copies``."""
    if "://" not in name:
        return open_run(args.runs, name)
    handle = parse_handle(name)
    # Two places may have a run of one id.
    folder = copies / f"{len(list(copies.iterdir()))}" / handle.id
    launcher_of(handle).fetch(handle, args, folder)
    return Run(folder)


def _check_alike(runs: Sequence[Run]) -> None:
    for run in runs[1:]:
        if run.study.objective != runs[0].study.objective or run.study.space != runs[0].study.space:
            raise UsageError(
                f"runs {runs[0].id} and {run.id} search other spaces or another objective: "
                "report them one at a time"
            )
