"""Engine `ray`, with the real Ray, asked to end: Ctrl-C once and twice, SIGTERM."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.cli_runs import STUDIES, LiveRun, assert_nothing_left, processes_of, wait_until

pytestmark = pytest.mark.ray

RAY = ("--engine", "ray", "--seed", "1")
Start = Callable[..., LiveRun]


def ctrl_c(run: LiveRun) -> None:
    """What a terminal does: all of the foreground's processes are told, not `run` alone."""
    group = os.getpgid(run.process.pid)
    for pid in {run.process.pid, *processes_of(str(run.runs))}:
        with contextlib.suppress(ProcessLookupError):
            if os.getpgid(pid) == group:
                os.kill(pid, signal.SIGINT)


def test_ctrl_c_lets_trials_end_and_a_second_one_does_not(start: Start) -> None:
    slowly = {"SLOW_STEP_S": "0.5"}
    study = str(STUDIES / "slow.py")
    run = start("slow", "run", study, *RAY, "--id", "slow", "--trials", "20", env=slowly)
    run.busy_worker()
    ctrl_c(run)
    status, out, err = run.wait()
    assert (status, "Traceback" in err) == (130, False), out + err
    rows = run.read("trials")
    assert {row["state"] for row in rows} == {"COMPLETED"} and len(rows) < 20
    assert_nothing_left(run.runs)

    endlessly = {"SLOW_STEP_S": "60"}
    again = start("slow", "resume", "slow", env=endlessly)
    again.busy_worker()
    log = again.runs / "slow" / "logs" / "chief.log"
    before = log.read_text().count("draining")
    ctrl_c(again)
    wait_until(lambda: log.read_text().count("draining") > before, "it drains")
    asked = time.monotonic()
    ctrl_c(again)
    status, out, err = again.wait()
    assert (status, "Traceback" in err) == (130, False), out + err
    assert time.monotonic() - asked < 20
    assert_nothing_left(run.runs)
    fates = [(row["state"], row["failure"]) for row in again.read("trials")]
    assert fates[: len(rows)] == [("COMPLETED", None)] * len(rows)
    assert set(fates[len(rows) :]) <= {("FAILED", "PREEMPTED"), ("WAITING", None)}
    assert ("FAILED", "PREEMPTED") in fates


def test_sigterm_saves_a_trial_and_gives_it_back(start: Start) -> None:
    slowly = {"SLOW_EPOCH_S": "1"}
    options = ("--trials", "1", "--workers", "1", "--checkpoint-every", "never", "--grace", "20")
    study = str(STUDIES / "slow_keras.py")
    run = start("keras", "run", study, *RAY, *options, "--id", "keras", env=slowly)
    run.busy_worker()
    run.process.send_signal(signal.SIGTERM)
    status, out, err = run.wait()
    assert status == 75, out + err
    assert_nothing_left(run.runs)
    first = run.read("trials")[0]
    assert (first["state"], first["failure"]) == ("FAILED", "PREEMPTED")
    assert "saved and given back" in first["error"]
    reached = first["history"][-1]["step"]
    assert 1 <= reached < 6

    again = start("keras", "resume", "keras")
    status, out, err = again.wait()
    assert status == 0, out + err
    rows: list[dict[str, Any]] = again.read("trials")
    assert [row["state"] for row in rows] == ["FAILED", "COMPLETED"]
    assert [step["step"] for step in rows[1]["history"]] == [1, 2, 3, 4, 5, 6]
    log = (again.runs / "keras" / "logs" / "trial-0000-2.log").read_text()
    assert f"Epoch {reached + 1}/6" in log and f"Epoch {reached}/6" not in log


def test_sigterm_to_all_processes_leaves_trials_their_grace(start: Start) -> None:
    study = str(STUDIES / "slow.py")
    options = ("--trials", "2", "--workers", "1", "--grace", "60", "--id", "slow")
    run = start("slow", "run", study, *RAY, *options, env={"SLOW_STEP_S": "4"})
    run.busy_worker()
    # As Ray ends a job.
    for pid in ((run.status() or {})["chief"]["pid"], run.process.pid):
        os.kill(pid, signal.SIGTERM)
    status, out, err = run.wait()
    assert status == 75 and "LOST" not in out, out + err
    assert_nothing_left(run.runs)
    (first, *_) = run.read("trials")
    assert (first["attempt"], first["state"]) == (1, "COMPLETED")


def test_sigterm_puts_back_what_outlasts_the_grace(start: Start) -> None:
    study = str(STUDIES / "slow.py")
    options = ("--trials", "4", "--grace", "1", "--id", "slow")
    run = start("slow", "run", study, *RAY, *options, env={"SLOW_STEP_S": "60"})
    run.busy_worker()
    asked = time.monotonic()
    run.process.send_signal(signal.SIGTERM)
    status, out, err = run.wait()
    assert status == 75, out + err
    assert 1 < time.monotonic() - asked < 25
    assert_nothing_left(run.runs)
    assert {row["failure"] for row in run.read("trials") if row["state"] != "WAITING"} == {
        "PREEMPTED"
    }
