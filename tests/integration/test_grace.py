"""SIGTERM: running trials may end within the grace period, and are put back after it."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hpo import env
from hpo.errors import UsageError
from hpo.run import Run
from tests.integration.test_chief import free_port
from tests.integration.test_faults import SLOW, completed_once
from tests.support.cli_runs import (
    HELD_UNTIL,
    LONG,
    PATIENCE_S,
    QUICK,
    ROOT,
    LiveRun,
    assert_nothing_left,
    environment,
    launch,
    points,
    wait_until,
)

Start = Callable[..., LiveRun]


def terminated(start: Start, grace: str, release: bool) -> LiveRun:
    """A run that left after SIGTERM in mid-trial, whose trials could end then or never."""
    options = ("--trials", "4", "--lease", "9", "--grace", grace)
    run: LiveRun = start("slow", *SLOW, "--id", "slow", *options, held=True)
    run.busy_worker()
    run.process.send_signal(signal.SIGTERM)
    run.wait_for_log("draining")
    if release:
        run.release()
    status, out, err = run.wait()
    assert status == 75, out + err
    assert f"within {grace} s" in out
    assert_nothing_left(run.runs)
    return run


def resume_to_the_end(run: LiveRun) -> list[dict[str, Any]]:
    done = launch("resume", "slow", "--runs", str(run.runs), env=QUICK)
    assert done.returncode == 0, done.stderr
    rows = completed_once(run)
    assert len(points(rows)) == 4
    return rows


def test_a_trial_that_is_longer_than_the_grace_is_put_back_and_no_attempt_counts_as_lost(
    start: Start,
) -> None:
    run = terminated(start, grace="1", release=False)
    # The workers were first asked to let them end, and had to give them back later.
    log = (run.runs / "slow" / "logs" / "chief.log").read_text()
    assert "draining\n" in log and log.index("draining\n") < log.index("draining, at once")
    rows = run.read("trials")
    assert {row["failure"] for row in rows if row["state"] != "WAITING"} == {"PREEMPTED"}
    reader = Run(run.runs / "slow").reader()
    assert {attempt.lost for attempt in reader.attempts()} == {0}
    reader.close()
    rows = resume_to_the_end(run)
    assert all(row["failure"] in (None, "PREEMPTED") for row in rows)


def test_a_trial_that_is_shorter_than_the_grace_ends(start: Start) -> None:
    run = terminated(start, grace=LONG, release=True)
    rows = run.read("trials")
    assert {row["state"] for row in rows} == {"COMPLETED"}
    assert len(resume_to_the_end(run)) == 4


def test_a_chief_that_dies_meanwhile_drains_again(start: Start) -> None:
    options = ("--trials", "9", "--lease", LONG, "--grace", LONG)
    run = start("slow", *SLOW, "--id", "slow", *options, held=True)
    run.busy_workers(2)
    chief = run.read("status")["chief"]["pid"]
    run.process.send_signal(signal.SIGTERM)
    run.wait_for_log("draining")
    os.kill(chief, signal.SIGKILL)
    run.wait_for_log("draining", times=2)
    run.release()
    assert run.wait()[0] == 75
    # Two were running and no other was handed out by the chief that came back.
    rows = run.read("trials")
    assert [row["state"] for row in rows if row["started_at"]] == ["COMPLETED"] * 2
    assert_nothing_left(run.runs)


@pytest.fixture
def by_hand(tmp_path: pathlib.Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts roles of one run by hand, and ends those that are left."""
    started: list[subprocess.Popen[str]] = []
    port = str(free_port())

    def begin(tuner_id: str, *options: str, **own: str) -> subprocess.Popen[str]:
        command = (*SLOW, "--id", "hand", "--runs", str(tmp_path / "runs"), *options)
        role = {env.TUNER_ID: tuner_id, env.ORACLE_IP: "127.0.0.1", env.ORACLE_PORT: port}
        role |= {HELD_UNTIL: str(tmp_path / "goes-on")}
        process = subprocess.Popen(
            [sys.executable, "launch.py", *command],
            cwd=ROOT,
            env=environment(command, {**role, **own}),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def running(tmp_path: pathlib.Path) -> list[Any]:
    """The records of the run by hand whose trial has reported something."""
    if not (tmp_path / "runs" / "hand" / "ledger.db").exists():
        return []
    reader = Run(tmp_path / "runs" / "hand").reader()
    try:
        return [r for r in reader.records() if r.state == "RUNNING" and r.history]
    finally:
        reader.close()


@pytest.mark.parametrize(("grace", "ended"), [("0.5", "FAILED"), (LONG, "COMPLETED")])
def test_a_worker_by_hand(
    tmp_path: pathlib.Path,
    by_hand: Callable[..., subprocess.Popen[str]],
    grace: str,
    ended: str,
) -> None:
    by_hand("chief", "--trials", "3")
    worker = by_hand("worker-0", "--grace", grace)
    wait_until(lambda: running(tmp_path), "a running trial")
    worker.send_signal(signal.SIGTERM)
    if ended == "COMPLETED":
        (tmp_path / "goes-on").touch()
    assert worker.wait(PATIENCE_S) == 75
    reader = Run(tmp_path / "runs" / "hand").reader()
    first, *others = reader.attempts()
    reader.close()
    assert first.record.state == ended
    assert {(a.record.state, a.record.attempt, a.lost) for a in others} == (
        {("WAITING", 2, 0)} if ended == "FAILED" else set()
    )


@pytest.mark.parametrize(("grace", "ended"), [("0.5", "FAILED"), (LONG, "COMPLETED")])
def test_a_chief_by_hand(
    tmp_path: pathlib.Path,
    by_hand: Callable[..., subprocess.Popen[str]],
    grace: str,
    ended: str,
) -> None:
    chief = by_hand("chief", "--trials", "3", "--lease", "9", TUNEFLEET_GRACE=grace)
    worker = by_hand("worker-0")
    wait_until(lambda: running(tmp_path), "a running trial")
    chief.send_signal(signal.SIGTERM)
    if ended == "COMPLETED":
        (tmp_path / "goes-on").touch()
    assert chief.wait(PATIENCE_S) == 75
    assert worker.wait(PATIENCE_S) == 75
    reader = Run(tmp_path / "runs" / "hand").reader()
    attempts = list(reader.attempts())
    reader.close()
    assert attempts[0].record.state == ended
    assert {attempt.lost for attempt in attempts} == {0}


def test_a_worker_by_hand_does_not_wait_for_a_chief_that_is_away(
    tmp_path: pathlib.Path, by_hand: Callable[..., subprocess.Popen[str]]
) -> None:
    chief = by_hand("chief", "--trials", "3")
    worker = by_hand("worker-0", "--grace", "1")
    wait_until(lambda: running(tmp_path), "a running trial")
    chief.kill()
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(PATIENCE_S) == 75


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf"])
def test_a_grace_that_is_none(text: str) -> None:
    with pytest.raises(UsageError, match="TUNEFLEET_GRACE='"):
        env.grace_s({env.GRACE: text})


def test_the_grace_of_the_environment() -> None:
    assert env.grace_s({}) == env.DEFAULT_GRACE_S
    assert env.grace_s(env.grace(2.5)) == 2.5
