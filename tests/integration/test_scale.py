"""More and fewer workers in the middle of a search."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from cluster.devices import most_workers
from hpo.run import Run
from tests.integration.test_bad_input import refused
from tests.integration.test_faults import SLOW, completed_once
from tests.support.cli_runs import ROOT, LiveRun, environment, launch, points, wait_until

Start = Callable[..., LiveRun]
LONG = {"SLOW_STEP_S": "0.3"}


def begin(start: Start, workers: int, trials: int = 8, **env: str) -> LiveRun:
    """A search of some seconds a trial."""
    options = ("--trials", str(trials), "--workers", str(workers), "--lease", "5")
    return start("slow", *SLOW, "--id", "slow", *options, env={**LONG, **env})


def scale(run: LiveRun, workers: int) -> None:
    done = launch("scale", run.id, "--workers", str(workers), "--runs", str(run.runs))
    assert done.returncode == 0, done.stderr


def live_workers(run: LiveRun) -> set[str]:
    return {worker["id"] for worker in (run.status() or {"workers": []})["workers"]}


def busy(run: LiveRun) -> int:
    return sum(worker["state"] == "RUNNING" for worker in run.read("status")["workers"])


def wait_for_workers(run: LiveRun, count: int) -> None:
    expected = {f"worker-{number}" for number in range(count)}
    wait_until(lambda: live_workers(run) == expected, f"exactly {count} workers")


def check_the_end(run: LiveRun, trials: int, lost: int = 0) -> None:
    """Every trial completed once, in its only attempt but for those lost, and nothing is left."""
    status, out, err = run.wait()
    assert status == 0, out + err
    rows = completed_once(run)
    assert len(points(rows)) == trials
    assert len(rows) == trials + lost
    assert run.processes() == []


def test_one_worker_then_three_then_one(start: Start) -> None:
    run = begin(start, workers=1, trials=10)
    run.busy_worker()
    scale(run, 3)
    wait_for_workers(run, 3)
    wait_until(lambda: busy(run) == 3, "three busy workers")
    scale(run, 1)
    wait_for_workers(run, 1)
    assert Run(run.runs / run.id).workers == 1
    # A worker that was one too many ended its trial: nothing was lost, nothing ran twice.
    check_the_end(run, trials=10)


def test_down_and_up_again_ends_in_as_many_as_were_asked_for_last(start: Start) -> None:
    run = begin(start, workers=3, trials=10)
    run.busy_worker()
    for workers in (1, 3, 1, 2):
        scale(run, workers)
    wait_for_workers(run, 2)
    scale(run, 1)
    wait_for_workers(run, 1)
    scale(run, 2)
    wait_for_workers(run, 2)
    check_the_end(run, trials=10)


def test_while_the_chief_is_killed(start: Start) -> None:
    run = begin(start, workers=1)
    run.busy_worker()
    chief = run.read("status")["chief"]["pid"]
    os.kill(chief, signal.SIGSTOP)
    command = ("scale", run.id, "--workers", "2", "--runs", str(run.runs))
    with subprocess.Popen(
        [sys.executable, "launch.py", *command], cwd=ROOT, env=environment(command)
    ) as asking:
        time.sleep(1.0)
        os.kill(chief, signal.SIGKILL)
        assert asking.wait(timeout=60) == 0
    wait_for_workers(run, 2)
    chief = run.read("status")["chief"]["pid"]
    scale(run, 1)
    os.kill(chief, signal.SIGKILL)
    # The next chief knows whom the one before had told to leave.
    wait_for_workers(run, 1)
    check_the_end(run, trials=8)


def test_two_callers_at_once(start: Start) -> None:
    run = begin(start, workers=1)
    run.busy_worker()
    callers = []
    for workers in ("2", "3"):
        command = ("scale", run.id, "--workers", workers, "--runs", str(run.runs))
        callers.append(
            subprocess.Popen(
                [sys.executable, "launch.py", *command], cwd=ROOT, env=environment(command)
            )
        )
    assert [caller.wait(timeout=60) for caller in callers] == [0, 0]
    wanted = Run(run.runs / run.id).workers
    assert wanted in (2, 3)
    wait_for_workers(run, wanted)
    check_the_end(run, trials=8)


def test_a_worker_that_was_one_too_many_and_dies_is_not_replaced(start: Start) -> None:
    run = begin(start, workers=2, trials=6)
    run.busy_worker()
    wait_until(lambda: busy(run) == 2, "two busy workers")
    (worker,) = (w for w in run.read("status")["workers"] if w["id"] == "worker-1")
    scale(run, 1)
    os.kill(worker["pid"], signal.SIGKILL)
    wait_for_workers(run, 1)
    check_the_end(run, trials=6, lost=1)


def test_the_number_asked_for_last_stays_when_the_run_goes_on(start: Start) -> None:
    run = begin(start, workers=1, trials=6)
    run.busy_worker()
    scale(run, 2)
    wait_for_workers(run, 2)
    wait_until(lambda: busy(run) == 2, "two busy workers")
    assert launch("stop", "slow", "--now", "--runs", str(run.runs)).returncode == 0
    run.wait()
    again = start("slow", "resume", "slow", env=LONG)
    wait_for_workers(again, 2)
    check_the_end(again, trials=6, lost=2)
    assert Run(run.runs / run.id).workers == 2


def test_what_is_refused(start: Start) -> None:
    run = begin(start, workers=1, trials=2, CUDA_VISIBLE_DEVICES="0,1")
    run.busy_worker()
    beyond = launch("scale", "slow", "--workers", "3", "--runs", str(run.runs))
    assert beyond.returncode == 2
    assert beyond.stderr.count("\n") == 1
    assert "which are enough for 2" in beyond.stderr
    assert run.wait()[0] == 0
    line = refused(run.runs, "scale", "slow", "--workers", "3")
    assert "is not running" in line
    assert "resume slow --workers 3" in line


@pytest.mark.parametrize(
    ("each", "gpus", "most"),
    [(None, 0, None), (None, 2, 2), (0, 2, None), (1, 2, 2), (2, 4, 2), (2, 5, 2)],
)
def test_how_many_workers_the_gpus_are_enough_for(
    each: int | None, gpus: int, most: int | None
) -> None:
    assert most_workers(each, [str(number) for number in range(gpus)]) == most
