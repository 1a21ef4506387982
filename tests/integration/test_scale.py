"""More and fewer workers in the middle of a search."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import psutil
import pytest

from cluster.devices import most_workers
from hpo.run import Run
from tests.integration.test_bad_input import refused
from tests.integration.test_faults import SLOW, completed_once
from tests.support.cli_runs import (
    LONG,
    PATIENCE_S,
    LiveRun,
    begin,
    launch,
    points,
    wait_until,
)

Start = Callable[..., LiveRun]


def search(start: Start, workers: int, trials: int = 8, lease: str = LONG, **env: str) -> LiveRun:
    """A search whose trials stay in their middle until they are released."""
    options = ("--trials", str(trials), "--workers", str(workers), "--lease", lease)
    return start("slow", *SLOW, "--id", "slow", *options, env=env, held=True)


def scale(run: LiveRun, workers: int) -> None:
    done = launch("scale", run.id, "--workers", str(workers), "--runs", str(run.runs))
    assert done.returncode == 0, done.stderr


def wait_for_workers(run: LiveRun, count: int) -> None:
    """Waits for exactly so many workers; those that are too many may end their trials."""
    expected = {f"worker-{number}" for number in range(count)}

    def look() -> bool:
        there = {w["id"]: w["trial_id"] for w in (run.status() or {"workers": []})["workers"]}
        if too_many := [there[name] for name in there.keys() - expected if there[name]]:
            run.release(*too_many)
        return there.keys() == expected

    wait_until(look, f"exactly {count} workers")


def check_the_end(run: LiveRun, trials: int, lost: int = 0) -> None:
    """Every trial completed once, in its only attempt but for those lost, and nothing is left."""
    run.release()
    status, out, err = run.wait()
    assert status == 0, out + err
    rows = completed_once(run)
    assert len(points(rows)) == trials
    assert len(rows) == trials + lost
    assert run.processes() == []


def test_one_worker_then_three_then_one(start: Start) -> None:
    run = search(start, workers=1, trials=10)
    run.busy_worker()
    scale(run, 3)
    wait_for_workers(run, 3)
    run.busy_workers(3)
    scale(run, 1)
    wait_for_workers(run, 1)
    assert Run(run.runs / run.id).workers == 1
    # A worker that was one too many ended its trial: nothing was lost, nothing ran twice.
    check_the_end(run, trials=10)


def test_down_and_up_again_ends_in_as_many_as_were_asked_for_last(start: Start) -> None:
    run = search(start, workers=3, trials=10)
    run.busy_workers(3)
    for workers in (1, 3, 1, 2):
        scale(run, workers)
    wait_for_workers(run, 2)
    scale(run, 1)
    wait_for_workers(run, 1)
    scale(run, 2)
    wait_for_workers(run, 2)
    check_the_end(run, trials=10)


def test_while_the_chief_is_killed(start: Start) -> None:
    run = search(start, workers=1)
    run.busy_worker()
    chief = run.read("status")["chief"]
    os.kill(chief["pid"], signal.SIGSTOP)
    with begin("scale", run.id, "--workers", "2", "--runs", str(run.runs)) as asking:
        port = int(chief["address"].rpartition(":")[2])
        calls = wait_until(lambda: asking.poll() or _is_at(asking.pid, port), "it calls the chief")
        assert calls is True, asking.communicate()
        os.kill(chief["pid"], signal.SIGKILL)
        assert asking.wait(PATIENCE_S) == 0
    wait_for_workers(run, 2)
    run.busy_workers(2)
    chief = run.read("status")["chief"]
    scale(run, 1)
    os.kill(chief["pid"], signal.SIGKILL)
    # The next chief knows whom the one before had told to leave.
    wait_for_workers(run, 1)
    check_the_end(run, trials=8)


def _is_at(pid: int, port: int) -> bool:
    """Whether a process has a connection to ``port``."""
    connections = psutil.Process(pid).net_connections("tcp")
    return any(found.raddr and found.raddr.port == port for found in connections)


def test_two_callers_at_once(start: Start) -> None:
    run = search(start, workers=1)
    run.busy_worker()
    callers = [
        begin("scale", run.id, "--workers", workers, "--runs", str(run.runs))
        for workers in ("2", "3")
    ]
    for caller in callers:
        _, err = caller.communicate(timeout=PATIENCE_S)
        assert caller.returncode == 0, err
    wanted = Run(run.runs / run.id).workers
    assert wanted in (2, 3)
    wait_for_workers(run, wanted)
    check_the_end(run, trials=8)


def test_a_worker_that_was_one_too_many_and_dies_is_not_replaced(start: Start) -> None:
    # Nobody takes its place and says so: that it is gone shows when its lease runs out.
    run = search(start, workers=2, trials=6, lease="10")
    (worker,) = (w for w in run.busy_workers(2) if w["id"] == "worker-1")
    scale(run, 1)
    os.kill(worker["pid"], signal.SIGKILL)
    wait_until(lambda: any(r["failure"] == "PREEMPTED" for r in run.rows()), "its lease is over")
    wait_for_workers(run, 1)
    check_the_end(run, trials=6, lost=1)


def test_the_number_asked_for_last_stays_when_the_run_goes_on(start: Start) -> None:
    # Workers hear of a stop at once when they renew their leases.
    run = search(start, workers=1, trials=6, lease="10")
    run.busy_worker()
    scale(run, 2)
    wait_for_workers(run, 2)
    run.busy_workers(2)
    assert launch("stop", "slow", "--now", "--runs", str(run.runs)).returncode == 0
    run.wait()
    again = start("slow", "resume", "slow", held=True)
    wait_for_workers(again, 2)
    check_the_end(again, trials=6, lost=2)
    assert Run(run.runs / run.id).workers == 2


def test_what_is_refused(start: Start) -> None:
    run = search(start, workers=1, trials=2, CUDA_VISIBLE_DEVICES="0,1")
    run.busy_worker()
    beyond = launch("scale", "slow", "--workers", "3", "--runs", str(run.runs))
    assert beyond.returncode == 2
    assert beyond.stderr.count("\n") == 1
    assert "which are enough for 2" in beyond.stderr
    run.release()
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
