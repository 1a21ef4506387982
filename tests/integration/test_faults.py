"""Processes that are killed, paused or asked to stop in the middle of a search."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable

from hpo.run import Run
from tests.support.cli_runs import (
    ROOT,
    STUDIES,
    LiveRun,
    assert_nothing_left,
    environment,
    launch,
    points,
    wait_for_end,
    wait_until,
)

SLOW = ("run", str(STUDIES / "slow.py"), "--seed", "1")
Start = Callable[..., LiveRun]


def slow(start: Start, *options: str, trials: int = 6, lease: str = "5") -> LiveRun:
    """A search of some seconds, in whose middle things can happen, also on a busy machine."""
    more = ("--id", "slow", "--trials", str(trials), "--lease", lease, *options)
    return start("slow", *SLOW, *more, env={"SLOW_STEP_S": "0.4"})


def completed_once(run: LiveRun) -> list[dict[str, object]]:
    """All attempts, after checking that no trial completed twice or ran on after completing."""
    rows: list[dict[str, object]] = run.read("trials")
    by_trial: dict[object, list[object]] = {}
    for row in rows:
        by_trial.setdefault(row["trial_id"], []).append(row["state"])
    for states in by_trial.values():
        assert states[-1] == "COMPLETED"
        assert states.count("COMPLETED") == 1
    return rows


def test_a_killed_worker_costs_an_attempt_and_leaves_no_ghost(start: Start) -> None:
    run = slow(start)
    worker = run.busy_worker()
    own = _descendants(worker["pid"], set(run.processes()))
    assert len(own) >= 2, "a fork server and a trial process"
    os.kill(worker["pid"], signal.SIGKILL)
    wait_until(lambda: not own & set(run.processes()), "no ghost is left", timeout=1.0)
    status, out, err = run.wait()
    assert status == 0, out + err
    rows = completed_once(run)
    lost = [row for row in rows if row["failure"] == "PREEMPTED"]
    assert [row["trial_id"] for row in lost] == [worker["trial_id"]]
    assert len(points(rows)) == 6
    assert_nothing_left(run.runs)


def test_a_killed_chief_comes_back_and_forgets_nothing(start: Start) -> None:
    run = slow(start, trials=8)
    run.busy_worker()
    wait_until(lambda: (run.status() or {})["trials"]["completed"], "a completed trial")
    for _ in range(3):
        chief = wait_until(lambda: (run.status() or {})["chief"]["pid"], "a chief")
        os.kill(chief, signal.SIGKILL)
        wait_until(lambda c=chief: (run.status() or {})["chief"]["pid"] not in (None, c), "another")
    status, out, err = run.wait()
    assert status == 0, out + err
    rows = completed_once(run)
    assert len(points(rows)) == 8
    # Workers kept their trials while the chief was away.
    assert all(row["failure"] is None for row in rows)


def test_nothing_outlives_a_killed_run_and_resume_goes_on(start: Start) -> None:
    run = slow(start, trials=5)
    run.busy_worker()
    run.process.kill()
    run.process.wait()
    wait_for_end(run.runs)
    status = run.status()
    assert status is not None
    assert status["state"] == "STOPPED"
    done_before = [row for row in run.read("trials") if row["state"] == "COMPLETED"]
    resumed = launch("resume", "slow", "--runs", str(run.runs))
    assert resumed.returncode == 0, resumed.stderr
    rows = completed_once(run)
    assert len(points(rows)) == 5
    assert [row for row in rows if row in done_before] == done_before


def test_one_interrupt_lets_running_trials_end(start: Start) -> None:
    run = slow(start, trials=30)
    run.busy_worker()
    run.process.send_signal(signal.SIGINT)
    status, _, _ = run.wait()
    assert status == 130
    rows = run.read("trials")
    assert {row["state"] for row in rows} == {"COMPLETED"}
    assert_nothing_left(run.runs)
    assert (run.status() or {})["state"] == "STOPPED"


def test_two_interrupts_put_running_trials_back(start: Start) -> None:
    run = start("slow", *SLOW, "--id", "slow", "--trials", "4", env={"SLOW_STEPS": "300"})
    run.busy_worker()
    run.process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    run.process.send_signal(signal.SIGINT)
    status, _, _ = run.wait(timeout=30)
    assert status == 130
    assert_nothing_left(run.runs)
    counts = (run.status() or {})["trials"]
    assert counts["waiting"] >= 1
    assert counts["failed"] == counts["running"] == 0


def test_stop_drains_and_the_same_request_resumes(start: Start) -> None:
    run = slow(start, trials=6)
    run.busy_worker()
    stopped = launch("stop", "slow", "--runs", str(run.runs))
    assert stopped.returncode == 0, stopped.stderr
    assert run.wait()[0] == 75
    assert (run.status() or {})["state"] == "STOPPED"
    again = launch(*SLOW, "--id", "slow", "--trials", "6", "--runs", str(run.runs))
    assert again.returncode == 0, again.stderr
    assert len(points(completed_once(run))) == 6


def test_stop_reaches_a_run_whose_chief_does_not_serve_yet(start: Start) -> None:
    run = slow(start, trials=50)
    folder = run.runs / "slow"
    begun = wait_until(lambda: (folder / "ledger.db").exists() and Run(folder), "the run")
    wait_until(lambda: begun.supervised, "it looks after its processes")
    stopped = launch("stop", "slow", "--runs", str(run.runs))
    assert stopped.returncode == 0 and "stopping slow" in stopped.stdout, stopped.stdout
    assert run.wait()[0] == 75
    again = launch("stop", "slow", "--runs", str(run.runs))
    assert (again.returncode, again.stdout) == (0, "run slow is not running\n")


def test_a_search_ends_while_its_sampler_still_thinks(start: Start) -> None:
    """A model of thousands of points takes minutes for one: nobody waits for it to leave."""
    run = start("r", *SLOW, "--id", "r", "--trials", "30", "--sampler", "kt-random")
    run.busy_worker()
    host = next(pid for pid in run.processes() if b"keras_tuner.host" in _command(pid))
    os.kill(host, signal.SIGSTOP)
    wait_until(lambda: (run.status() or {})["trials"]["running"] == 0, "nothing is left to run")
    stopped = launch("stop", "r", "--runs", str(run.runs))
    assert stopped.returncode == 0, stopped.stderr
    assert run.wait(timeout=30)[0] == 75
    assert_nothing_left(run.runs)
    assert (run.status() or {})["state"] == "STOPPED"
    again = launch("resume", "r", "--runs", str(run.runs))
    assert again.returncode == 0, again.stderr
    assert len(points(completed_once(run))) == 30


def _command(pid: int) -> bytes:
    return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()


def test_a_paused_worker_learns_that_its_trial_was_given_away(start: Start) -> None:
    run = slow(start, trials=6, lease="2")
    worker = run.busy_worker()
    os.kill(worker["pid"], signal.SIGSTOP)
    lost = wait_until(
        lambda: [row for row in run.read("trials") if row["failure"] == "PREEMPTED"],
        "the lease has run out",
    )
    assert lost[0]["trial_id"] == worker["trial_id"]
    os.kill(worker["pid"], signal.SIGCONT)
    status, out, err = run.wait()
    assert status == 0, out + err
    assert len(points(completed_once(run))) == 6


def test_grid_is_exact_whatever_dies(start: Start) -> None:
    study = str(STUDIES / "small_grid.py")
    run = start("grid", "run", study, "--id", "grid", "--sampler", "grid", "--workers", "3")
    wait_until(lambda: (run.status() or {"workers": []})["workers"], "workers")
    # Few enough that no trial is lost five times, which would end it as failed.
    for victim in ("worker", "chief", "worker", "both", "worker", "chief"):
        status = run.status() or {}
        pids = [status["chief"]["pid"]] if victim != "worker" else []
        if victim != "chief":
            pids += [worker["pid"] for worker in status["workers"] if worker["trial_id"]][:1]
        for pid in filter(None, pids):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.7)
    status, out, err = run.wait()
    assert status == 0, out + err
    rows = completed_once(run)
    assert len(points(rows)) == 12
    assert len({point for _, point in points(rows)}) == 12


def test_a_disk_that_fills_up_stops_the_search_and_costs_no_result(
    small_disk: pathlib.Path,
) -> None:
    runs = small_disk / "runs"
    command = (*SLOW, "--id", "slow", "--trials", "8", "--runs", str(runs))
    process = subprocess.Popen(
        [sys.executable, "launch.py", *command],
        cwd=ROOT,
        env=environment(command),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )

    def completed() -> list[dict[str, object]]:
        done = launch("trials", "slow", "--json", "--runs", str(runs))
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        return [row for row in rows if row["state"] == "COMPLETED"]

    wait_until(completed, "a completed trial")
    ballast = small_disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(b"0" * 512)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 3, err
    assert err.count("\n") == 1, err
    assert "full" in err
    assert_nothing_left(runs)
    ballast.unlink()
    before = completed()
    resumed = launch("resume", "slow", "--runs", str(runs))
    assert resumed.returncode == 0, resumed.stderr
    after = completed()
    assert [row for row in after if row in before] == before
    assert len(points(after)) == len(after) == 8


def _descendants(pid: int, among: set[int]) -> set[int]:
    """The processes that an agent started, directly or through its fork server."""
    return {p for p in among if p != pid and _parents(p) & {pid}}


def _parents(pid: int) -> set[int]:
    found: set[int] = set()
    while pid > 1:
        try:
            with open(f"/proc/{pid}/stat") as file:
                pid = int(file.read().rpartition(")")[2].split()[1])
        except OSError:
            break
        found.add(pid)
    return found
