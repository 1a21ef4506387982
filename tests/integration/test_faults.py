"""Processes that are killed, paused or asked to stop in the middle of a search."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import threading
from collections.abc import Callable

import pytest

from cluster import cli
from cluster.verbs import control
from hpo.errors import PlaceError
from hpo.run import Run
from tests.support.cli_runs import (
    LONG,
    QUICK,
    STUDIES,
    LiveRun,
    assert_nothing_left,
    launch,
    points,
    read,
    wait_for_end,
    wait_until,
)

SLOW = ("run", str(STUDIES / "slow.py"), "--seed", "1")
Start = Callable[..., LiveRun]


def slow(start: Start, *options: str, trials: int = 6, lease: str = LONG) -> LiveRun:
    """A search whose trials stay in their middle until they are released."""
    more = ("--id", "slow", "--trials", str(trials), "--lease", lease, *options)
    return start("slow", *SLOW, *more, held=True)


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
    # While the search goes on.
    wait_until(lambda: not own & set(run.processes()), "no ghost is left")
    run.release()
    status, out, err = run.wait()
    assert status == 0, out + err
    rows = completed_once(run)
    lost = [row for row in rows if row["failure"] == "PREEMPTED"]
    assert [row["trial_id"] for row in lost] == [worker["trial_id"]]
    assert len(points(rows)) == 6
    assert_nothing_left(run.runs)


def test_a_killed_chief_comes_back_and_forgets_nothing(start: Start) -> None:
    run = slow(start, trials=8)
    run.complete(1)
    run.busy_worker()
    for _ in range(3):
        chief = wait_until(lambda: (run.status() or {})["chief"]["pid"], "a chief")
        os.kill(chief, signal.SIGKILL)
        wait_until(lambda c=chief: (run.status() or {})["chief"]["pid"] not in (None, c), "another")
    run.release()
    status, out, err = run.wait()
    assert status == 0, out + err
    rows = completed_once(run)
    assert len(points(rows)) == 8
    # Workers kept their trials while the chief was away.
    assert all(row["failure"] is None for row in rows)


def test_nothing_outlives_a_killed_run_and_resume_goes_on(start: Start) -> None:
    run = slow(start, trials=5)
    run.complete(1)
    run.busy_worker()
    run.process.kill()
    run.process.wait()
    wait_for_end(run.runs)
    status = run.status()
    assert status is not None
    assert status["state"] == "STOPPED"
    done_before = [row for row in run.read("trials") if row["state"] == "COMPLETED"]
    assert done_before
    resumed = launch("resume", "slow", "--runs", str(run.runs), env=QUICK)
    assert resumed.returncode == 0, resumed.stderr
    rows = completed_once(run)
    assert len(points(rows)) == 5
    assert [row for row in rows if row in done_before] == done_before


def test_one_interrupt_lets_running_trials_end(start: Start) -> None:
    run = slow(start, trials=30)
    run.busy_worker()
    run.process.send_signal(signal.SIGINT)
    run.wait_for_log("draining")
    run.release()
    status, _, _ = run.wait()
    assert status == 130
    rows = run.read("trials")
    assert {row["state"] for row in rows} == {"COMPLETED"}
    assert_nothing_left(run.runs)
    assert (run.status() or {})["state"] == "STOPPED"


def test_two_interrupts_put_running_trials_back(start: Start) -> None:
    # A worker hears that its trial was put back when it renews its lease.
    run = slow(start, trials=4, lease="3")
    run.busy_worker()
    run.process.send_signal(signal.SIGINT)
    run.wait_for_log("draining")
    run.process.send_signal(signal.SIGINT)
    # Its trials never end by themselves.
    status, _, _ = run.wait()
    assert status == 130
    assert_nothing_left(run.runs)
    counts = (run.status() or {})["trials"]
    assert counts["waiting"] >= 1
    assert counts["failed"] == counts["running"] == 0


def test_stop_drains_and_the_same_request_resumes(start: Start) -> None:
    run = slow(start, trials=6)
    run.busy_worker()
    run.stop()
    assert run.wait()[0] == 75
    assert (run.status() or {})["state"] == "STOPPED"
    again = launch(*SLOW, "--id", "slow", "--trials", "6", "--runs", str(run.runs), env=QUICK)
    assert again.returncode == 0, again.stderr
    assert len(points(completed_once(run))) == 6


# What a Python runs first: a chief waits there until a file is there.
LATE_CHIEF = """
import os, time
while os.environ.get("KERASTUNER_TUNER_ID") == "chief" and not os.path.exists({file!r}):
    time.sleep(0.02)
"""


def test_stop_reaches_a_run_whose_chief_does_not_serve_yet(
    start: Start,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    may_serve, early = tmp_path / "may-serve", tmp_path / "early"
    early.mkdir()
    (early / "sitecustomize.py").write_text(LATE_CHIEF.format(file=str(may_serve)))
    options = ("--id", "slow", "--trials", "50")
    run = start("slow", *SLOW, *options, env={"PYTHONPATH": str(early)}, held=True)
    folder = run.runs / "slow"
    begun = wait_until(lambda: (folder / "ledger.db").exists() and Run(folder), "the run")
    wait_until(lambda: begun.supervised, "it looks after its processes")
    no_chief = control._no_chief

    def once_asked(run: Run) -> PlaceError:
        may_serve.touch()
        return no_chief(run)

    def let_trials_end() -> None:
        run.wait_for_log("draining")
        run.release()

    # `stop` has found no chief before there is one.
    monkeypatch.setattr(control, "_no_chief", once_asked)
    ending = threading.Thread(target=let_trials_end)
    ending.start()
    assert cli.main(["stop", "slow", "--runs", str(run.runs)]) == 0
    ending.join()
    assert may_serve.exists() and "stopping slow" in capsys.readouterr().out
    assert run.wait()[0] == 75
    again = launch("stop", "slow", "--runs", str(run.runs))
    assert (again.returncode, again.stdout) == (0, "run slow is not running\n")


def test_a_search_ends_while_its_sampler_still_thinks(start: Start) -> None:
    """A model of thousands of points takes minutes for one: nobody waits for it to leave."""
    run = start("r", *SLOW, "--id", "r", "--trials", "30", "--sampler", "kt-random", held=True)
    run.busy_worker()
    host = next(pid for pid in run.processes() if b"keras_tuner.host" in _command(pid))
    os.kill(host, signal.SIGSTOP)
    run.release()
    wait_until(lambda: not _open_trials(run), "nothing is left to run")
    assert run.stop()
    assert run.wait()[0] == 75
    assert_nothing_left(run.runs)
    assert (run.status() or {})["state"] == "STOPPED"
    again = launch("resume", "r", "--runs", str(run.runs), env=QUICK)
    assert again.returncode == 0, again.stderr
    assert len(points(completed_once(run))) == 30


def _open_trials(run: LiveRun) -> int:
    trials: dict[str, int] = (run.status() or {})["trials"]
    return trials["running"] + trials["waiting"]


def _command(pid: int) -> bytes:
    return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()


def test_a_paused_worker_learns_that_its_trial_was_given_away(start: Start) -> None:
    run = slow(start, trials=6, lease="2")
    worker = run.busy_worker()
    os.kill(worker["pid"], signal.SIGSTOP)
    wait_until(lambda: (worker["trial_id"], "PREEMPTED") in _failures(run), "the lease has run out")
    os.kill(worker["pid"], signal.SIGCONT)
    run.release()
    status, out, err = run.wait()
    assert status == 0, out + err
    assert len(points(completed_once(run))) == 6


def _failures(run: LiveRun) -> set[tuple[str, str]]:
    return {(row["trial_id"], row["failure"]) for row in run.rows() if row["failure"]}


def test_grid_is_exact_whatever_dies(start: Start) -> None:
    study = str(STUDIES / "small_grid.py")
    options = ("--id", "grid", "--sampler", "grid", "--workers", "3")
    run = start("grid", "run", study, *options, held=True)
    # Few enough that no trial is lost five times, which would end it as failed.
    for number, victim in enumerate(("worker", "chief", "worker", "both", "worker", "chief"), 1):
        worker = run.busy_worker()
        chief = (run.status() or {})["chief"]["pid"]
        pids = {"worker": [worker["pid"]], "chief": [chief], "both": [chief, worker["pid"]]}[victim]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda gone=set(pids): _replaced(run, gone), "others are in their place")
        run.complete(number)
    run.release()
    status, out, err = run.wait()
    assert status == 0, out + err
    rows = completed_once(run)
    assert len(points(rows)) == 12
    assert len({point for _, point in points(rows)}) == 12


def _replaced(run: LiveRun, gone: set[int]) -> bool:
    """Whether a chief and all workers are there, and none is one of those that are gone."""
    status = run.status() or {}
    there = {status["chief"]["pid"], *(worker["pid"] for worker in status["workers"])}
    return len(there) == 4 and None not in there and not there & gone


def test_a_disk_that_fills_up_stops_the_search_and_costs_no_result(
    small_disk: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    runs, options = small_disk / "runs", ("--id", "slow", "--trials", "8")
    run = LiveRun(runs, "slow", *SLOW, *options, gate=tmp_path / "goes-on")
    try:
        run.complete(1)
        ballast = small_disk / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(b"0" * 512)
        assert run.gate
        run.gate.touch()
        status, _, err = run.wait()
    finally:
        run.end()
    assert status == 3, err
    assert err.count("\n") == 1, err
    assert "full" in err
    assert_nothing_left(runs)
    ballast.unlink()
    before = _completed(runs)
    assert before
    resumed = launch("resume", "slow", "--runs", str(runs), env=QUICK)
    assert resumed.returncode == 0, resumed.stderr
    after = _completed(runs)
    assert [row for row in after if row in before] == before
    assert len(points(after)) == len(after) == 8


def _completed(runs: pathlib.Path) -> list[dict[str, object]]:
    return [row for row in read(runs, "slow", "trials") if row["state"] == "COMPLETED"]


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
