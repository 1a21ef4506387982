"""The verbs that read: what there is, where it stands, what came out."""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import Any

from cluster import logs as logs_of_run
from cluster import tables
from cluster.progress import Progress, exit_status, summary, typed
from hpo import env
from hpo.errors import RunError
from hpo.failures import headline
from hpo.run import Run, open_run
from hpo.run import list_runs as runs_in
from hpo.status import STOPPED, is_live, status_of
from hpo.trial import TrialRecord, TrialState
from hpo.winner import Winner, remember_test

_LOOK_S = 0.5
_SHORT = ("id", "study", "engine", "sampler", "pruner", "state", "trials", "best", "elapsed_s")

# What of a status changes while nothing happens.
_OF_TIME = ("elapsed_s", "utilization")


def list_runs(args: argparse.Namespace) -> int:
    """Prints the runs there are, the oldest first."""
    runs, unreadable = runs_in(args.runs)
    for error in unreadable:
        print(f"launch.py: {error}", file=sys.stderr)
    found = [status_of(run) for run in runs]
    if args.json:
        tables.print_json([{name: status[name] for name in _SHORT} for status in found])
    elif found:
        headers = ("run", "state", "ended", "best", "study", "engine", "sampler", "time")
        tables.print_table(headers, [_list_row(status) for status in found])
    else:
        print(f"no runs in {args.runs}: begin one with python launch.py run STUDY")
    return 0


def _list_row(status: dict[str, Any]) -> tuple[str, ...]:
    trials, best = status["trials"], status["best"]
    return (
        status["id"],
        status["state"],
        f"{_ended(trials)}/{trials['wanted']}",
        tables.number(best and best["value"]),
        status["study"],
        status["engine"],
        status["sampler"],
        tables.duration(status["elapsed_s"]),
    )


def _ended(trials: dict[str, int]) -> int:
    return trials["completed"] + trials["pruned"] + trials["failed"]


def status(args: argparse.Namespace) -> int:
    """Prints where a run stands."""
    run = open_run(args.runs, args.run)
    found = status_of(run)
    if args.json:
        tables.print_json(found)
    else:
        tables.print_pairs(_status_rows(run, found))
    return 0


def _status_rows(run: Run, found: dict[str, Any]) -> list[tuple[str, str]]:
    trials, chief = found["trials"], found["chief"]
    of_states = {name: count for name, count in trials.items() if name != "wanted"}
    how = ", ".join(found[name] for name in ("engine", "sampler"))
    busy = found["utilization"]
    rows = [
        ("run", f"{found['id']}  {found['state']}"),
        ("study", f"{found['study']} by {how}, pruner {found['pruner']}"),
        ("trials", f"{_ended(trials)} of {trials['wanted']} ended: {_or_none(of_states)}"),
        ("failures", _or_none(found["failures"])),
    ]
    if best := found["best"]:
        value = f"{run.study.objective}={tables.number(best['value'])}"
        rows.append(("best", f"trial {best['trial_id']} {value}"))
        rows.append(("", tables.assignments(best["params"])))
    share = "" if busy is None else f", workers busy {busy:.0%} of theirs"
    rows.append(("time", tables.duration(found["elapsed_s"]) + share))
    if chief["pid"]:
        rows.append(("chief", f"{chief['address']} (pid {chief['pid']} on {chief['host']})"))
    for worker in found["workers"]:
        doing = f"trial {worker['trial_id']}" if worker["trial_id"] else "idle"
        where = f"{worker['device']}, pid {worker['pid']} on {worker['host']}"
        rows.append((worker["id"], f"{doing} ({where})"))
    if found["state"] == STOPPED:
        rows.append(("next", typed(run, "resume")))
    return rows


def _or_none(counts: dict[str, int]) -> str:
    return tables.counted(counts) or "none"


def trials(args: argparse.Namespace) -> int:
    """Prints a row for each attempt."""
    run = open_run(args.runs, args.run)
    live = is_live(run)
    reader = run.reader()
    try:
        if args.json:
            for attempt in reader.attempts():
                tables.print_json(attempt.record.to_json())
        else:
            objective = run.study.objective
            headers = ("trial", "attempt", "state", objective, "steps", "time", "worker", "params")
            tables.print_table(headers, [_trial_row(record, live) for record in reader.records()])
    finally:
        reader.close()
    return 0


def _trial_row(record: TrialRecord, live: bool) -> tuple[str, ...]:
    running = record.state is TrialState.RUNNING and live
    until = record.ended_at or (time.time() if running else None)
    took = tables.duration(until - record.started_at) if until and record.started_at else ""
    error = f"  {headline(record.error)}" if record.error else ""
    return (
        record.trial_id,
        str(record.attempt),
        f"{record.state} {record.failure or ''}".rstrip(),
        tables.number(record.value),
        str(len(record.history)),
        took,
        record.worker or "",
        tables.assignments(record.params) + error,
    )


def watch(args: argparse.Namespace) -> int:
    """Follows a run until it ends; answers what the search left with."""
    run = open_run(args.runs, args.run)
    if args.json:
        return _follow_as_json(run)
    print(f"run {run.id}", flush=True)
    return follow(run)


def _follow_as_json(run: Run) -> int:
    """Prints the status whenever more of it has changed than the time that has gone by."""
    shown: dict[str, Any] = {}
    goes_on = True
    while goes_on:
        # Asked first, so that the last object is the status after the end.
        goes_on = is_live(run)
        found = status_of(run)
        if any(found[name] != shown.get(name) for name in found if name not in _OF_TIME):
            tables.print_json(found)
            shown = found
        if goes_on:
            time.sleep(_LOOK_S)
    return exit_status(run)


def follow(run: Run) -> int:
    """Shows ``run`` as `run` itself does, until it ends."""
    progress = Progress(run)
    try:
        while is_live(run):
            progress.update()
            time.sleep(_LOOK_S)
        progress.update()
    finally:
        progress.close()
    summary(run)
    return exit_status(run)


def best(args: argparse.Namespace) -> int:
    """Prints the winner, with its test figures; they are computed now if nobody did before."""
    run = open_run(args.runs, args.run)
    environ = {**os.environ, **env.data_variables(args.data_dir)}
    winner = completed(run, remember_test(run, environ, args.debug))
    if winner.untested:
        print(f"launch.py: no test figures: {winner.untested}", file=sys.stderr)
    if args.json:
        tables.print_json(winner.to_json())
        return 0
    record = winner.record
    rows = [("trial", record.trial_id), (run.study.objective, tables.number(record.value))]
    rows += [("test", tables.assignments(winner.test))] if winner.test else []
    rows += [("fit", tables.duration(record.fit_s))] if record.fit_s is not None else []
    rows += [(name, tables.number(value)) for name, value in record.params.items()]
    tables.print_pairs(rows)
    return 0


def completed(run: Run, winner: Winner | None) -> Winner:
    """The ``winner`` of ``run``; raises RunError where no trial has completed."""
    if winner is None:
        raise RunError(
            f"run {run.id} has no completed trial yet, so nothing is best: "
            f"see {typed(run, 'trials')}"
        )
    return winner


def logs(args: argparse.Namespace) -> int:
    """Prints the log of the chief, of a worker or of a trial."""
    run = open_run(args.runs, args.run)
    logs_of_run.show(run, args.which or logs_of_run.CHIEF, args.follow, args.json)
    return 0
