"""The verb `benchmark`: which search is worth its hours, for real or replayed from a table."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cluster import tables
from cluster.launchers.base import launcher_for, load_launcher
from cluster.searches import Searches
from hpo import env
from hpo.errors import UsageError
from hpo.run import open_run
from hpo.study import Study, digest_of, find_study

if TYPE_CHECKING:
    from hpo.benchmark.analysis import Result
    from hpo.benchmark.folder import Folder
    from hpo.benchmark.matrix import Pair
    from hpo.benchmark.nodes import Nodes
    from hpo.benchmark.simulate import Budget
    from hpo.benchmark.table import Table

DEFAULT_SAMPLERS = ("random", "grid", "bayesian")
# Fewer than these say little; a replay costs seconds and has no excuse.
_REAL_SEEDS, _REPLAY_SEEDS = 5, 20
_MOST_SHARED = 5


def benchmark(args: argparse.Namespace) -> int:
    """Compares searches; answers 1 where some of them failed."""
    if args.on and (args.published or args.replay):
        raise UsageError("--on goes with a STUDY: the others run here")
    if args.on:
        # Before anything is read: an option of another place, a place that nobody knows.
        launcher_for(args.on, args)
    if args.published:
        from cluster.verbs.published import published

        return published(args)
    if (args.replay is None) == (args.study is None):
        raise UsageError("benchmark what? a STUDY, or --replay TABLE, or --published")
    return _replay(args) if args.replay else _real(args)


def _replay(args: argparse.Namespace) -> int:
    from hpo.benchmark.assemble import REPLAY
    from hpo.benchmark.simulate import simulate
    from hpo.benchmark.table_reading import digest_of_table, read_table

    table = read_table(args.replay)
    budget = _budget(args, default=max(table.rows // 2, 1))
    _check_budget(budget, table)
    nodes = _nodes(args)
    asked = {
        "kind": REPLAY,
        "table": str(args.replay.resolve()),
        "table_digest": digest_of_table(args.replay),
        "nodes": nodes.described(),
        **_common(args, table.study(), budget, args.seeds or _REPLAY_SEEDS, args.workers or [8]),
    }
    folder = _open(args, asked, table.name)
    return _finish(args, folder, lambda cell: (simulate(table, cell, budget, nodes), ""), table)


def _real(args: argparse.Namespace) -> int:
    from hpo.benchmark.assemble import MATRIX
    from hpo.probe import read_study

    path = find_study(args.study)
    environ = {**os.environ, **env.data_variables(args.data_dir)}
    study = read_study(path, environ, args.debug).study
    study = dataclasses.replace(study, epochs=args.epochs or study.epochs)
    budget = _budget(args, default=10)
    asked = {
        "kind": MATRIX,
        "path": str(path),
        "study_digest": digest_of(path),
        "epochs": args.epochs,
        "train_examples": args.train_examples,
        **({"on": args.on} if args.on else {}),
        **_common(args, study, budget, args.seeds or _REAL_SEEDS, args.workers or [2]),
    }
    folder = _open(args, asked, study.name)
    return _finish(args, folder, Searches(args, folder, path, study, budget).run_cell, None)


def _common(
    args: argparse.Namespace, study: Study, budget: Budget, seeds: int, workers: Sequence[int]
) -> dict[str, Any]:
    """What both kinds of benchmark are asked, with their cells.

    Shows what is not supported; raises UsageError for it unless the rest is to go on.
    """
    from hpo.benchmark.matrix import cells_of, seeds_of

    there = load_launcher(args.on) if args.on else None
    cells, unsupported = cells_of(
        args.engines or ([there.engine] if there else []),
        args.samplers or DEFAULT_SAMPLERS,
        args.pruners or ("none",),
        workers,
        seeds_of(args.seed, seeds),
        study,
        there.check_engine if there else None,
    )
    # Nobody asked for those that are taken where none are named.
    _show_unsupported(unsupported, args.skip_unsupported or args.samplers is None)
    if not cells:
        raise UsageError("nothing that was asked for is supported")
    return {
        "study": study.to_json(),
        "seed": args.seed,
        "budget": dataclasses.asdict(budget),
        "cells": [dataclasses.asdict(cell) for cell in cells],
        "unsupported": [dataclasses.asdict(pair) for pair in unsupported],
    }


def _show_unsupported(unsupported: Sequence[Pair], goes_on: bool) -> None:
    for pair in unsupported:
        name = f"{pair.engine} / {pair.sampler} + {pair.pruner}"
        print(f"launch.py: not supported: {name}: {pair.why}", file=sys.stderr)
    if unsupported and not goes_on:
        raise UsageError(
            f"{len(unsupported)} of what was asked for is not supported: leave it out, or add "
            "--skip-unsupported to go on with the rest"
        )


def _budget(args: argparse.Namespace, default: int) -> Budget:
    from hpo.benchmark.simulate import Budget

    trials = args.trials
    if trials is None and args.node_seconds is None:
        trials = default
    shared = args.shared
    if shared is None:
        shared = min(_MOST_SHARED, (trials or 4 * _MOST_SHARED) // 4)
    return Budget(trials, args.node_seconds, shared)


def _check_budget(budget: Budget, table: Table) -> None:
    """Raises UsageError for one that is smaller than any trial of the table."""
    if budget.node_seconds is None:
        return
    shortest = min(
        sum(step.seconds for step in table.curve(row, seed))
        for row in range(table.rows)
        for seed in range(table.seeds)
    )
    if budget.node_seconds < shortest:
        raise UsageError(
            f"--node-seconds {budget.node_seconds:g} is less than one trial: the table's shortest "
            f"takes {shortest:.3g} s"
        )


def _nodes(args: argparse.Namespace) -> Nodes:
    from hpo.benchmark.nodes import Draw, Nodes

    typed = {
        "start_s": args.start_delay and Draw.parse(args.start_delay),
        "speed": args.node_speed and Draw.parse(args.node_speed),
        "preempted_after_s": args.preempt and Draw.parse(args.preempt),
        "call_s": args.call_s,
        "suggestion_s": args.suggest_s,
    }
    return Nodes(**{name: value for name, value in typed.items() if value is not None})


def _open(args: argparse.Namespace, asked: dict[str, Any], name: str) -> Folder:
    import re
    import secrets
    import time

    from hpo.benchmark.folder import Folder

    base = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:12].strip("-") or "bench"
    made = f"{base}-{time.strftime('%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"
    folder = Folder.open(args.runs, args.id or made, asked)
    print(f"benchmark {folder.id}: {len(asked['cells'])} searches", flush=True)
    return folder


def _finish(args: argparse.Namespace, folder: Folder, run_cell: Any, table: Table | None) -> int:
    """Does the cells, trains the leading configurations again, writes and shows the report."""
    from hpo.benchmark.assemble import assemble, results_of
    from hpo.benchmark.carry_out import DONE, carry_out
    from hpo.benchmark.matrix import Cell

    cells = [Cell(**row) for row in folder.asked["cells"]]
    outcomes = carry_out(folder, cells, run_cell, lambda words: print(words, flush=True))
    study = Study.from_json(folder.asked["study"])
    results = results_of(outcomes, study, table)
    if not results:
        print(f"no search has come to a value: see {folder.log}")
        return 1
    if table is None and args.top:
        _judge_again(args, folder, results)
    document = assemble(folder)
    paths = document.write(folder.path / "report")
    if args.json:
        tables.print_json(document.data)
    else:
        _show(document.data)
        print(f"report: {paths[0]}")
    return 1 if any(outcome.state != DONE for outcome in outcomes) else 0


def _judge_again(args: argparse.Namespace, folder: Folder, results: Sequence[Result]) -> None:
    """Trains the leading configurations with fresh seeds, a run for each seed."""
    from hpo.benchmark.assemble import WINNER
    from hpo.benchmark.folder import write_json
    from hpo.benchmark.winner import leading

    if (folder.path / WINNER).is_file():
        return
    seen = leading(results, args.top)
    points = folder.path / "leading.json"
    write_json(points, [params for params, _ in seen])
    study = Study.from_json(folder.asked["study"])
    again = Searches(args, folder, pathlib.Path(folder.asked["path"]), study, _budget(args, 10))
    fresh: dict[str, list[float]] = {}
    for number in range(args.fresh_seeds):
        run = open_run(args.runs, again.retrain(points, len(seen), number))
        with contextlib.closing(run.reader()) as reader:
            latest = {a.record.trial_id: a.record for a in reader.attempts(history=False)}
        for record in latest.values():
            if record.value is not None:
                fresh.setdefault(json.dumps(record.params), []).append(record.value)
        print(f"fresh seed {number + 1} of {args.fresh_seeds}: run {run.id}", flush=True)
    write_json(folder.path / WINNER, {"top": args.top, "fresh": fresh})


def _show(data: Mapping[str, Any]) -> None:
    """The report in short."""
    for task in data["tasks"]:
        print(f"\n{task['workers']} workers")
        headers = ("method", "seeds", "log regret at the end", "against random search", "training")
        rows = [
            (
                method["name"],
                str(method["searches"]),
                _interval(method["regret"]["100"]),
                (method["versus_random"] or {}).get("verdict", ""),
                f"{method['utilisation']['value']:.0%}",
            )
            for method in task["methods"]
        ]
        tables.print_table(headers, rows)
        print(task["leaders"])
    if data["winner"]:
        print(f"\nwith fresh seeds: {data['winner']['words']}")
    for row in data["failed"]:
        print(f"failed: {row['engine']} / {row['sampler']}, seed {row['seed']}: {row['error']}")


def _interval(found: dict[str, Any]) -> str:
    if found["low"] is None:
        return f"{found['value']:.3g}"
    return f"{found['value']:.3g} [{found['low']:.3g}, {found['high']:.3g}]"
