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


def test_a_killed_workers_trial_goes_on_elsewhere_also_with_another_chief(
    start: Start, whole: list[Any], tmp_path: pathlib.Path
) -> None:
    stops = {epoch: tmp_path / f"after-{epoch}" for epoch in (3, 5)}
    held = ",".join(f"{epoch}={path}" for epoch, path in stops.items())
    run = start("hit", *ONE, "--id", "hit", env={"SLOW_EPOCH_S": "0", "SLOW_HOLD": held})
    # The trial waits after its third epoch, one after a checkpoint.
    wait_until(lambda: has_reported(run, 3), "three epochs")
    wait_until(lambda: checkpoints(run) == ["0000.2.checkpoint"], "a checkpoint")
    stops[3].touch()
    os.kill((run.status() or {})["workers"][0]["pid"], signal.SIGKILL)
    # The next attempt waits after the fifth, and loses its chief as well.
    wait_until(lambda: has_reported(run, 5), "five epochs")
    wait_until(lambda: checkpoints(run) == ["0000.4.checkpoint"], "a later checkpoint")
    status = run.status() or {}
    stops[5].touch()
    os.kill(status["chief"]["pid"], signal.SIGKILL)
    os.kill(status["workers"][0]["pid"], signal.SIGKILL)
    ended, out, err = run.wait()
    assert ended == 0, out + err
    *lost, completed = run.read("trials")
    assert [row["failure"] for row in lost] == ["PREEMPTED"] * 2
    assert completed["state"] == "COMPLETED"
    assert completed["history"] == whole, "to the last digit as if nothing had happened"
    assert checkpoints(run) == []
    log = (run.runs / "hit" / "logs" / "trial-0000-3.log").read_text()
    assert "Epoch 5/6" in log and "Epoch 4/6" not in log


def test_sigterm_saves_what_runs_and_resume_goes_on(
    start: Start, whole: list[Any], tmp_path: pathlib.Path
) -> None:
    # A trial that waits after its second epoch until it is told to end.
    go_on = tmp_path / "go-on"
    held = {"SLOW_EPOCH_S": "0", "SLOW_HOLD": f"2={go_on}"}
    run = start("hit", *ONE[:-1], "never", "--grace", "200", "--id", "hit", env=held)
    wait_until(lambda: has_reported(run, 2), "two epochs")
    run.process.terminate()
    log = run.runs / "hit" / "logs" / "chief.log"
    wait_until(lambda: "draining" in log.read_text(), "it drains")
    go_on.touch()
    status, out, err = run.wait()
    assert status == 75, out + err
    (saved,) = checkpoints(run)
    done = launch("resume", "hit", "--runs", str(run.runs), env={"SLOW_EPOCH_S": "0"})
    assert done.returncode == 0, done.stderr
    first, second = run.read("trials")
    assert first["failure"] == "PREEMPTED"
    assert saved == f"0000.{len(first['history'])}.checkpoint"
    assert second["history"] == whole


def test_no_room_for_checkpoints_costs_time_only(
    start: Start, whole: list[Any], tmp_path: pathlib.Path
) -> None:
    go_on = tmp_path / "go-on"
    held = {"SLOW_EPOCH_S": "0", "SLOW_HOLD": f"4={go_on}"}
    run = start("hit", *ONE, "--checkpoint-gb", "0", "--id", "hit", env=held)
    wait_until(lambda: has_reported(run, 4), "four epochs")
    assert checkpoints(run) == []
    go_on.touch()
    os.kill((run.status() or {})["workers"][0]["pid"], signal.SIGKILL)
    assert run.wait()[0] == 0
    assert run.read("trials")[-1]["history"] == whole
    assert "no room" in (run.runs / "hit" / "logs" / "chief.log").read_text()


def test_hyperbands_promotions_train_only_what_is_new(tmp_path: pathlib.Path) -> None:
    options = ("--sampler", "kt-hyperband", "--epochs", "4", "--trials", "8", "--id", "halved")
    options += ("--workers", "1", "--runs", str(tmp_path))
    done = launch("run", STUDY, *options, env={"SLOW_EPOCH_S": "0"})
    assert done.returncode == 0, done.stderr
    rows = read(tmp_path, "halved", "trials")
    steps = [[report["step"] for report in row["history"]] for row in rows]
    assert [3, 4] in steps, steps
    assert [1, 2] in steps, steps
