"""A trial that is interrupted goes on from its checkpoint, on whatever worker comes next."""

from __future__ import annotations

import os
import pathlib
import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.cli_runs import STUDIES, LiveRun, launch, read, wait_until

Start = Callable[..., LiveRun]
STUDY = str(STUDIES / "slow_keras.py")
ONE = ("run", STUDY, "--trials", "1", "--workers", "1", "--seed", "1", "--checkpoint-every", "2")


def has_reported(run: LiveRun, steps: int) -> list[dict[str, Any]]:
    """The attempts that run and have come so far."""
    rows = run.read("trials") if run.status() else []
    return [r for r in rows if r["state"] == "RUNNING" and len(r["history"]) >= steps]


def checkpoints(run: LiveRun) -> list[str]:
    folder = run.runs / run.id / "checkpoints"
    return sorted(path.name for path in folder.glob("*")) if folder.exists() else []


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The history of the one trial where nothing happens to it."""
    runs = tmp_path_factory.mktemp("whole")
    run = LiveRun(runs, "whole", *ONE, "--id", "whole", env={"SLOW_EPOCH_S": "0"})
    try:
        assert run.wait()[0] == 0
        history: list[Any] = run.read("trials")[0]["history"]
        return history
    finally:
        run.end()


def test_a_killed_workers_trial_goes_on_elsewhere(start: Start, whole: list[Any]) -> None:
    run = start("hit", *ONE, "--id", "hit", env={"SLOW_EPOCH_S": "0.5"})
    wait_until(lambda: checkpoints(run) == ["0000.2.checkpoint"], "a checkpoint")
    wait_until(lambda: has_reported(run, 3), "an epoch more")
    os.kill((run.status() or {})["workers"][0]["pid"], signal.SIGKILL)
    status, out, err = run.wait()
    assert status == 0, out + err
    lost, completed = run.read("trials")
    assert (lost["failure"], completed["state"]) == ("PREEMPTED", "COMPLETED")
    assert completed["history"] == whole, "to the last digit as if nothing had happened"
    assert checkpoints(run) == []
    log = (run.runs / "hit" / "logs" / "trial-0000-2.log").read_text()
    assert "Epoch 6/6" in log and "Epoch 2/6" not in log


def test_a_chief_that_is_killed_keeps_the_checkpoint(start: Start, whole: list[Any]) -> None:
    run = start("hit", *ONE, "--id", "hit", env={"SLOW_EPOCH_S": "0.5"})
    wait_until(lambda: checkpoints(run), "a checkpoint")
    status = run.status() or {}
    os.kill(status["chief"]["pid"], signal.SIGKILL)
    os.kill(status["workers"][0]["pid"], signal.SIGKILL)
    assert run.wait()[0] == 0
    assert run.read("trials")[-1]["history"] == whole


def test_sigterm_saves_what_runs_and_resume_goes_on(start: Start, whole: list[Any]) -> None:
    slowly = {"SLOW_EPOCH_S": "1"}
    run = start("hit", *ONE[:-1], "never", "--grace", "20", "--id", "hit", env=slowly)
    wait_until(lambda: has_reported(run, 1), "an epoch")
    run.process.terminate()
    status, out, err = run.wait()
    assert status == 75, out + err
    (saved,) = checkpoints(run)
    done = launch("resume", "hit", "--runs", str(run.runs), env={"SLOW_EPOCH_S": "0"})
    assert done.returncode == 0, done.stderr
    first, second = run.read("trials")
    assert first["failure"] == "PREEMPTED"
    assert saved == f"0000.{len(first['history'])}.checkpoint"
    assert second["history"] == whole


def test_no_room_for_checkpoints_costs_time_only(start: Start, whole: list[Any]) -> None:
    run = start("hit", *ONE, "--checkpoint-gb", "0", "--id", "hit", env={"SLOW_EPOCH_S": "0.5"})
    wait_until(lambda: has_reported(run, 4), "four epochs")
    assert checkpoints(run) == []
    os.kill((run.status() or {})["workers"][0]["pid"], signal.SIGKILL)
    assert run.wait()[0] == 0
    assert run.read("trials")[-1]["history"] == whole
    assert "no room" in (run.runs / "hit" / "logs" / "chief.log").read_text()


def test_hyperbands_promotions_train_only_what_is_new(tmp_path: pathlib.Path) -> None:
    options = ("--sampler", "kt-hyperband", "--epochs", "4", "--trials", "8", "--id", "halved")
    done = launch(
        "run", STUDY, *options, "--runs", str(tmp_path), env={"SLOW_EPOCH_S": "0"}, timeout=200
    )
    assert done.returncode == 0, done.stderr
    rows = read(tmp_path, "halved", "trials")
    steps = [[report["step"] for report in row["history"]] for row in rows]
    assert [3, 4] in steps, steps
    assert [1, 2] in steps, steps
