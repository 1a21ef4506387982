"""The verb `record`: learning curves of many configurations, kept as a table for replay."""

from __future__ import annotations

import argparse
import dataclasses
import os
import pathlib
import sys
import time
from typing import Any

from cluster import tables
from cluster.cells import how_to_train, last_words, search
from hpo import env
from hpo.errors import DataError, PlaceError, UsageError
from hpo.registry import SAMPLERS
from hpo.run import new_id, open_run
from hpo.samplers.base import seed_of
from hpo.study import Study, digest_of, find_study


def record(args: argparse.Namespace) -> int:
    """Trains configurations with each of some seeds, a run for each, and writes their table."""
    from hpo.benchmark.folder import Folder, write_json
    from hpo.benchmark.recording import points_of, table_of
    from hpo.probe import read_study

    path = find_study(args.study)
    kind = SAMPLERS.load(args.points)
    if not kind.ignores_results:
        fitting = [name for name in SAMPLERS if SAMPLERS.load(name).ignores_results]
        raise UsageError(
            f"--points {args.points}: its points depend on results: take {', '.join(fitting)}"
        )
    if args.out.exists():
        raise DataError(f"{args.out} is there already: give another --out, or remove it")
    environ = {**os.environ, **env.data_variables(args.data_dir)}
    study = read_study(path, environ, args.debug).study
    study = dataclasses.replace(study, epochs=args.epochs or study.epochs)
    kind.check(study)
    folder = Folder.open(args.runs, args.id or new_id(study)[:34].rstrip("-"), _asked(args, path))
    points = points_of(study, kind, args.seed, args.configurations)
    file = folder.path / "points.json"
    write_json(file, points)
    print(f"recording {folder.id}: {len(points)} configurations, {args.seeds} seeds", flush=True)
    runs = []
    for number in range(args.seeds):
        run_id = f"{folder.id}-s{number}"
        began = time.monotonic()
        command = [*_search(args, path, file, len(points), number), "--id", run_id]
        status = search(command, args.runs, folder.log)
        if status != 0:
            raise PlaceError(
                f"run {run_id} left with status {status} ({last_words(folder.log)}): the same "
                f"command with --id {folder.id} goes on; see {folder.log}"
            )
        took = tables.duration(time.monotonic() - began)
        print(f"run {run_id}: seed {number + 1} of {args.seeds} in {took}", flush=True)
        runs.append(open_run(args.runs, run_id))
    table, left_out = table_of(runs, _source(args, study, runs[0].created_at))
    table.write(args.out)
    for words in left_out:
        print(f"launch.py: left out {words}", file=sys.stderr)
    print(f"{args.out}: {table.rows} configurations, {table.seeds} seeds, {table.steps} steps")
    return 0


def _asked(args: argparse.Namespace, path: pathlib.Path) -> dict[str, Any]:
    names = ("points", "configurations", "seeds", "epochs", "train_examples", "seed")
    asked = {name: getattr(args, name) for name in names}
    return {"kind": "recording", "study": str(path), "study_digest": digest_of(path), **asked}


def _search(
    args: argparse.Namespace, path: pathlib.Path, points: pathlib.Path, count: int, number: int
) -> list[str]:
    """The command line of the run of one seed, but for its id."""
    words = [str(path), "--start", str(points), "--trials", str(count)]
    words += ["--seed", str(seed_of(args.seed, f"recording {number}"))]
    words += how_to_train(args)
    if args.workers is not None:
        words += ["--workers", str(args.workers)]
    return words


def _source(args: argparse.Namespace, study: Study, began: float) -> dict[str, Any]:
    """How the table came about, for whoever meets it later."""
    import platform
    from importlib import metadata

    packages = ("tensorflow-cpu", "tensorflow", "keras", "numpy")
    installed = {_plain(d.metadata["Name"]): d.version for d in metadata.distributions()}
    return {
        "study": study.name,
        "study_digest": study.digest,
        "points": args.points,
        "seed": args.seed,
        "epochs": study.epochs,
        "train_examples": args.train_examples or "all",
        "workers": args.workers or 2,
        "recorded": time.strftime("%Y-%m-%d", time.gmtime(began)),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: installed[name] for name in packages if name in installed},
    }


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")
