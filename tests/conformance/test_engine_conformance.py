"""What every engine promises, with real processes.

Nothing is known here of an engine's processes beyond what `status --json` says of them: an
engine may have a leader alone, which runs its trials itself or elsewhere.
"""

from __future__ import annotations

import collections
import json
import os
import pathlib
import signal
from collections.abc import Callable
from typing import Any

import pytest

from hpo.registry import ENGINES
from hpo.run import Run
from tests.conformance.test_samplers import Search
from tests.support.cli_runs import (
    QUICK,
    STUDIES,
    LiveRun,
    assert_nothing_left,
    launch,
    points,
    read,
    wait_until,
)

every_engine = pytest.mark.parametrize(
    "engine",
    [pytest.param(name, marks=pytest.mark.ray if name == "ray" else ()) for name in ENGINES],
)
Start = Callable[..., LiveRun]

SLOW = str(STUDIES / "slow.py")


def search(runs: pathlib.Path, engine: str, study: str, *options: str) -> list[dict[str, Any]]:
    """The attempts of a search that ended as it was asked, and left no process."""
    arguments = ("run", study, "--engine", engine, "--id", "r", "--runs", str(runs), *options)
    done = launch(*arguments)
    assert done.returncode == 0, done.stderr + done.stdout
    assert_nothing_left(runs)
    rows: list[dict[str, Any]] = read(runs, "r", "trials")
    return rows


@every_engine
def test_a_search_ends_as_asked_and_not_otherwise_with_other_workers(
    tmp_path: pathlib.Path, engine: str
) -> None:
    study, found = str(STUDIES / "small_grid.py"), []
    for workers in ("1", "3"):
        runs = tmp_path / workers
        options = ("--sampler", "random", "--trials", "7", "--seed", "0", "--workers", workers)
        rows = search(runs, engine, study, *options)
        assert [row["trial_id"] for row in rows] == [f"{number:04d}" for number in range(7)]
        assert {(row["state"], row["engine"]) for row in rows} == {("COMPLETED", engine)}
        status = read(runs, "r")
        assert (status["state"], status["engine"]) == ("DONE", engine)
        assert status["trials"]["completed"] == status["trials"]["wanted"] == 7
        best = {name: status["best"][name] for name in ("trial_id", "value", "params")}
        ended_first = min(rows, key=lambda row: (row["value"], row["ended_at"]))
        assert best == {name: ended_first[name] for name in best}
        assert status["workers"] == []
        found.append(points(rows))
    assert found[0] == found[1]
    assert len({point for _, point in found[0]}) == 7
    # And so not on the engine either.
    alone = Search("random", Run(tmp_path / "1" / "r").study, seed=0).run(7)
    assert [json.loads(point) for _, point in found[0]] == alone


@every_engine
def test_a_leader_that_is_killed_runs_no_completed_trial_again(start: Start, engine: str) -> None:
    options = ("--engine", engine, "--trials", "8", "--seed", "1", "--lease", "5", "--id", "r")
    run = start("r", "run", SLOW, *options, held=True)
    run.complete(2)
    leader = run.read("status")["chief"]["pid"]
    completed = [row for row in run.read("trials") if row["state"] == "COMPLETED"]
    os.kill(leader, signal.SIGKILL)
    run.release()
    status, out, err = run.wait()
    if status != 0:
        # One that takes its search along when it dies is taken up by hand.
        again = launch("resume", "r", "--runs", str(run.runs), env=QUICK)
        assert again.returncode == 0, out + err + again.stderr
    rows = run.read("trials")
    assert [row for row in rows if row in completed] == completed
    states = collections.defaultdict(list)
    for row in rows:
        states[row["trial_id"]].append(row["state"])
    assert len(states) == 8
    for name, seen in states.items():
        assert seen[-1] == "COMPLETED" and seen.count("COMPLETED") == 1, (name, seen)
    assert_nothing_left(run.runs)


@every_engine
def test_failures_are_told_apart_and_tried_again_where_that_may_help(
    tmp_path: pathlib.Path, engine: str
) -> None:
    options = ("--sampler", "grid", "--same-error", "9")
    rows = search(tmp_path, engine, str(STUDIES / "failing.py"), *options)
    ends = collections.defaultdict(list)
    for row in rows:
        ends[row["params"]["way"]].append((row["state"], row["failure"]))
    # By default what its own code ended is tried once more, and a loss that is no number is not.
    code = [("FAILED", "CODE")] * 2
    expected = {"raise": code, "nothing": code, "die": code}
    assert ends == {**expected, "nan": [("FAILED", "NAN")], "fine": [("COMPLETED", None)]}
    words = {row["params"]["way"]: row["error"] for row in rows if row["error"]}
    assert "failing.py" in words["raise"] and "ValueError: this point cannot be" in words["raise"]
    assert "SIGKILL" in words["die"]
    assert "loss is nan at step 1" in words["nan"]
    failures = read(tmp_path, "r")["failures"]
    assert {kind: number for kind, number in failures.items() if number} == {"CODE": 6, "NAN": 1}


@every_engine
def test_a_pruned_trial_is_that_and_no_failure(tmp_path: pathlib.Path, engine: str) -> None:
    options = ("--pruner", "asha", "--trials", "9", "--seed", "5")
    rows = search(tmp_path, engine, str(STUDIES / "curves.py"), *options)
    counts = collections.Counter(row["state"] for row in rows)
    assert set(counts) == {"COMPLETED", "PRUNED"} and counts.total() == 9
    for row in rows:
        # The last rung is the last step: who falls there has trained to its end.
        assert len(row["history"]) in ((1, 3, 9) if row["state"] == "PRUNED" else (9,))
        assert row["value"] == min(report["metrics"]["loss"] for report in row["history"])
        assert row["failure"] is None
    status = read(tmp_path, "r")
    assert status["trials"]["pruned"] == counts["PRUNED"]
    assert status["state"] == "DONE" and sum(status["failures"].values()) == 0


@every_engine
def test_a_search_stops_when_it_is_told_to(start: Start, engine: str) -> None:
    options = ("--engine", engine, "--trials", "50", "--seed", "1", "--lease", "5", "--id", "r")
    run = start("r", "run", SLOW, *options, held=True)
    run.complete(1)
    # The others never end by themselves.
    run.busy_worker()
    told = launch("stop", "r", "--now", "--runs", str(run.runs))
    assert told.returncode == 0, told.stderr
    status, out, err = run.wait()
    assert status == 75, out + err
    assert_nothing_left(run.runs)
    ended = run.read("status")
    assert ended["state"] == "STOPPED" and ended["trials"]["running"] == 0
    assert ended["trials"]["completed"] >= 1


@every_engine
def test_grid_tries_each_point_once_though_a_worker_is_killed(
    tmp_path: pathlib.Path, start: Start, engine: str
) -> None:
    study = tmp_path / "lattice.py"
    study.write_text(LATTICE)
    options = ("--engine", engine, "--sampler", "grid", "--workers", "4", "--lease", "5")
    run = start("r", "run", str(study), *options, "--id", "r", held=True)
    # An engine may have a worker before that has a process.
    victim = wait_until(lambda: (busy := run.busy_worker())["pid"] and busy, "a worker's process")
    os.kill(victim["pid"], signal.SIGKILL)
    wait_until(lambda: any(r["failure"] == "PREEMPTED" for r in run.rows()), "its trial is lost")
    run.release()
    status, out, err = run.wait()
    assert status == 0, out + err
    rows = run.read("trials")
    completed = [row["params"] for row in rows if row["state"] == "COMPLETED"]
    assert completed == [{"n": n, "flag": flag} for n in range(1, 6) for flag in (False, True)]
    lost = [row for row in rows if row["state"] != "COMPLETED"]
    assert [(row["worker"], row["failure"]) for row in lost] == [(victim["id"], "PREEMPTED")]
    assert_nothing_left(run.runs)


LATTICE = """
import os
import time

OBJECTIVE = "loss"
UNTIL = os.environ.get("SLOW_UNTIL")


def evaluate(hp, report):
    n, flag = hp.Int("n", 1, 5), hp.Boolean("flag")
    report(1, {"loss": n + flag})
    while UNTIL and not os.path.exists(UNTIL):
        time.sleep(0.02)
    return {}
"""
