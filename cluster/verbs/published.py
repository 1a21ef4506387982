"""`benchmark --published`: the three published systems, run with their samplers."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
from typing import Any

from cluster import tables
from cluster.cells import how_to_train, last_words, search
from hpo.benchmark.folder import Folder
from hpo.benchmark.published import PUBLISHED, Published
from hpo.errors import UsageError
from hpo.run import Run, open_run
from hpo.trial import TrialState
from hpo.winner import winner_of

_HEADERS = ("study", "sampler", "trials", "epochs", "training examples", "seed")
_FIGURES = ("val_accuracy", "test_accuracy", "test_loss")


def published(args: argparse.Namespace) -> int:
    """Runs them, or goes on; prints what they published beside what came out. 1 if one failed."""
    if args.study or args.replay:
        raise UsageError("--published names its studies itself and runs them here")
    names = ("trials", "epochs", "train_examples", "seed", "samplers")
    asked = {"kind": "published", **{name: getattr(args, name) for name in names}}
    chosen = [row for row in PUBLISHED if not args.samplers or row.sampler in args.samplers]
    if not chosen:
        known = ", ".join(dict.fromkeys(row.sampler for row in PUBLISHED))
        raise UsageError(f"--samplers {','.join(args.samplers)}: the published ones are {known}")
    folder = Folder.open(args.runs, args.id or "published", asked)
    print(f"benchmark {folder.id}: {len(chosen)} searches", flush=True)
    rows, failed = [], 0
    for row in chosen:
        run_id = f"{folder.id}-{row.name}"[:40]
        status = search([*_words(args, row), "--id", run_id], args.runs, folder.log)
        if status == 0:
            rows.append(_measured(args, row, open_run(args.runs, run_id)))
            print(f"run {run_id}: {_said(rows[-1])}", flush=True)
        else:
            failed += 1
            why = last_words(folder.log)
            print(f"run {run_id} left with status {status}: {why}", flush=True)
    _print(args, rows)
    return 1 if failed else 0


def _words(args: argparse.Namespace, row: Published) -> list[str]:
    words = [row.study, "--sampler", row.sampler, "--seed", str(args.seed)]
    trials = args.trials or row.trials
    words += ["--trials", str(trials)] if trials else []
    words += ["--workers", str(args.workers[0])] if args.workers else []
    return [*words, *how_to_train(args)]


def _measured(args: argparse.Namespace, row: Published, run: Run) -> dict[str, Any]:
    winner = winner_of(run)
    test = (winner.test if winner else None) or {}
    with contextlib.closing(run.reader()) as reader:
        latest = {a.record.trial_id: a.record for a in reader.attempts(history=False)}
    done = [record for record in latest.values() if record.state is TrialState.COMPLETED]
    return {
        "run": run.id,
        "study": row.study,
        "sampler": row.sampler,
        "trials": len(done),
        "trials_published": row.trials if row.trials_stated else None,
        "epochs": run.study.epochs,
        "train_examples": args.train_examples or "all",
        "seed": run.seed,
        "published": {name: dataclasses.asdict(row).get(name) for name in _FIGURES},
        "measured": {
            "val_accuracy": winner.record.value if winner else None,
            "test_accuracy": test.get("accuracy"),
            "test_loss": test.get("loss"),
        },
    }


def _said(row: dict[str, Any]) -> str:
    return ", ".join(f"{n} {tables.number(v)}" for n, v in row["measured"].items() if v is not None)


def _print(args: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    if args.json:
        tables.print_json(rows)
        return
    headers = [*_HEADERS]
    for name in _FIGURES:
        headers += [f"{name}, published", "here"]
    table = []
    for row in rows:
        stated = row["trials_published"] or "not stated"
        cells = [row["study"], row["sampler"], f"{row['trials']} ({stated})", str(row["epochs"])]
        cells += [str(row["train_examples"]), str(row["seed"])]
        for name in _FIGURES:
            cells += [tables.number(row["published"][name]), tables.number(row["measured"][name])]
        table.append(cells)
    print()
    tables.print_table(headers, table)
