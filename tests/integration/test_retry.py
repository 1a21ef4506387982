"""Trials that failed run again."""

from __future__ import annotations

import json
import os
import pathlib
import signal
from collections.abc import Callable
from typing import Any

from tests.integration.test_bad_input import refused
from tests.integration.test_faults import SLOW
from tests.support.cli_runs import (
    LONG,
    QUICK,
    STUDIES,
    LiveRun,
    launch,
    points,
    wait_for_end,
    wait_until,
)

MENDING = str(STUDIES / "mending.py")
ONCE = ("--code-retries", "0", "--same-error", "9")


def trials(runs: pathlib.Path, run_id: str) -> list[dict[str, Any]]:
    printed = launch("trials", run_id, "--json", "--runs", str(runs)).stdout
    return [json.loads(line) for line in printed.splitlines()]


def a_run_with_failures(tmp_path: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """Its folder of runs, and the file that keeps two of its six trials from completing."""
    broken, runs = tmp_path / "broken", tmp_path / "runs"
    broken.touch()
    options = ("--sampler", "grid", "--id", "mend", *ONCE, "--runs", str(runs))
    done = launch("run", MENDING, *options, env={"MENDING_BROKEN": str(broken)})
    assert done.returncode == 0, done.stderr
    return runs, broken


def test_the_failed_ones_run_again_and_no_other(tmp_path: pathlib.Path) -> None:
    runs, broken = a_run_with_failures(tmp_path)
    before = trials(runs, "mend")
    failed = {row["trial_id"] for row in before if row["state"] == "FAILED"}
    assert len(failed) == 2
    broken.unlink()
    again = launch("retry", "mend", "--failed", "--runs", str(runs))
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith("run mend\n")
    after = trials(runs, "mend")
    assert [row for row in after if row in before] == before
    fresh = [row for row in after if row not in before]
    assert {(row["trial_id"], row["attempt"], row["state"]) for row in fresh} == {
        (trial_id, 2, "COMPLETED") for trial_id in failed
    }
    assert len(points(after)) == 6
    status = json.loads(launch("status", "mend", "--json", "--runs", str(runs)).stdout)
    assert (status["state"], status["trials"]["completed"]) == ("DONE", 6)
    assert status["failures"]["CODE"] == 2
    assert "no trial of run mend has failed" in refused(runs, "retry", "mend", "--failed")


def test_what_fails_again_is_failed_again(tmp_path: pathlib.Path) -> None:
    runs, broken = a_run_with_failures(tmp_path)
    for attempt in (2, 3):
        again = launch(
            *("retry", "mend", "--failed", "--workers", "1", "--runs", str(runs)),
            env={"MENDING_BROKEN": str(broken)},
        )
        assert again.returncode == 0, again.stderr
        failed = [row for row in trials(runs, "mend") if row["attempt"] == attempt]
        assert [row["failure"] for row in failed] == ["CODE", "CODE"]
    assert len(trials(runs, "mend")) == 6 + 2 * 2


def test_a_trial_that_was_lost_too_often(start: Callable[..., LiveRun]) -> None:
    options = ("--trials", "2", "--workers", "1", "--lease", LONG, "--lost-attempts", "1")
    run = start("slow", *SLOW, "--id", "slow", *options, held=True)
    worker = run.busy_worker()
    # A run that goes on is left alone.
    live = launch("retry", "slow", "--failed", "--runs", str(run.runs))
    assert (live.returncode, live.stderr.count("\n")) == (2, 1)
    assert "is running" in live.stderr
    os.kill(worker["pid"], signal.SIGKILL)
    wait_until(lambda: any(row["state"] == "FAILED" for row in run.rows()), "it is lost")
    run.release()
    assert run.wait()[0] == 0
    (lost,) = (row for row in run.read("trials") if row["state"] == "FAILED")
    assert (lost["failure"], lost["trial_id"]) == ("PREEMPTED", worker["trial_id"])
    again = launch("retry", "slow", "--failed", "--runs", str(run.runs), env=QUICK)
    assert again.returncode == 0, again.stderr
    rows = run.read("trials")
    assert [row["attempt"] for row in rows if row["trial_id"] == lost["trial_id"]] == [1, 2]
    assert sorted(row["state"] for row in rows) == ["COMPLETED", "COMPLETED", "FAILED"]


def test_a_retry_that_is_interrupted_goes_on_as_any_run(
    tmp_path: pathlib.Path, start: Callable[..., LiveRun]
) -> None:
    runs, broken = a_run_with_failures(tmp_path)
    broken.unlink()
    run = start("mend", "retry", "mend", "--failed", held=True)
    wait_until(lambda: len(run.rows()) == 8, "both attempts are in the ledger")
    run.busy_worker()
    run.process.kill()
    run.process.wait()
    wait_for_end(run.runs)
    assert launch("resume", "mend", "--runs", str(runs)).returncode == 0
    latest = {row["trial_id"]: row["state"] for row in trials(runs, "mend")}
    assert list(latest.values()) == ["COMPLETED"] * 6


def test_what_is_refused(tmp_path: pathlib.Path) -> None:
    runs, _ = a_run_with_failures(tmp_path)
    before = trials(runs, "mend")
    assert "--failed" in refused(runs, "retry", "mend")
    assert "GPUs" in refused(runs, "retry", "mend", "--failed", "--gpus-per-worker", "64")
    assert trials(runs, "mend") == before
