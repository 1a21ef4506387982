"""Engine `ray`, with the real Ray: whatever can happen to its processes, and how it is ended.

Ray takes seconds to start, so each search here answers several questions.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
from collections.abc import Callable
from typing import Any

import pytest

from hpo.engines.base import load_engine
from hpo.engines.ray_tune.room import Node, Share, fitting, share
from hpo.errors import UsageError
from tests.support.cli_runs import (
    LONG,
    STUDIES,
    LiveRun,
    assert_nothing_left,
    launch,
    points,
    processes_of,
    wait_for_end,
    wait_until,
)

RAY = ("--engine", "ray", "--seed", "1")
Start = Callable[..., LiveRun]


@pytest.mark.ray
def test_a_search_outlives_its_leader_its_run_and_ctrl_c(start: Start) -> None:
    study = str(STUDIES / "slow.py")
    options = ("--id", "slow", "--trials", "20", "--lease", "5")
    run = start("slow", "run", study, *RAY, *options, held=True)
    run.complete(1)
    leader = status_of(run)["chief"]["pid"]
    os.kill(leader, signal.SIGKILL)
    wait_until(lambda: status_of(run)["chief"]["pid"] not in (None, leader), "another one")
    run.busy_worker()
    scaled = launch("scale", "slow", "--workers", "3", "--runs", str(run.runs))
    assert scaled.returncode == 0, scaled.stderr
    run.busy_workers(3)
    run.process.kill()
    run.process.wait()
    wait_for_end(run.runs)
    before = completed(run)
    assert len(before) == 1

    resumed = start("slow", "resume", "slow", held=True)
    running = {worker["trial_id"] for worker in resumed.busy_workers(3)}
    ctrl_c(resumed)
    resumed.wait_for_log("draining")
    resumed.release()
    status, out, err = resumed.wait()
    assert (status, "Traceback" in err) == (130, False), out + err
    assert_nothing_left(run.runs)
    # It handed out nothing more, and what ran has ended.
    drained = completed(run)
    assert drained[: len(before)] == before
    assert {row["trial_id"] for row in drained} == {row["trial_id"] for row in before} | running
    fates = {(row["state"], row["failure"]) for row in run.rows()}
    assert fates <= {("COMPLETED", None), ("FAILED", "PREEMPTED"), ("WAITING", None)}

    again = start("slow", "resume", "slow", held=True)
    lost = {worker["trial_id"] for worker in again.busy_workers(3)}
    ctrl_c(again)
    again.wait_for_log("draining", times=2)
    ctrl_c(again)
    # Its trials would never end by themselves.
    status, out, err = again.wait()
    assert (status, "Traceback" in err) == (130, False), out + err
    assert_nothing_left(run.runs)
    rows = again.read("trials")
    assert [row for row in rows if row["state"] == "COMPLETED"] == drained
    assert len(drained) == len(points(drained))
    ends = {row["trial_id"]: (row["state"], row["failure"]) for row in rows}
    assert {ends[trial_id] for trial_id in lost} <= {("FAILED", "PREEMPTED"), ("WAITING", None)}
    preempted = {row["trial_id"] for row in rows if row["failure"] == "PREEMPTED"}
    assert lost <= preempted
    assert all(row["failure"] in (None, "PREEMPTED") for row in rows)


@pytest.mark.ray
def test_a_keras_trial_goes_on_after_sigterm_and_after_its_actor_and_leaves_its_weights(
    start: Start, tmp_path: pathlib.Path
) -> None:
    study = str(STUDIES / "slow_keras.py")
    first, second = tmp_path / "first", tmp_path / "second"
    held = {"SLOW_EPOCH_S": "0", "SLOW_HOLD": f"2={first}"}
    options = ("--trials", "1", "--workers", "1", "--checkpoint-every", "1", "--id", "keras")
    run = start("keras", "run", study, *RAY, *options, "--grace", LONG, env=held)
    wait_until(lambda: reached(run) == 2, "two epochs")
    run.process.send_signal(signal.SIGTERM)
    run.wait_for_log("draining")
    first.touch()
    status, out, err = run.wait()
    assert status == 75, out + err
    assert_nothing_left(run.runs)
    (saved, *_) = run.read("trials")
    assert (saved["state"], saved["failure"]) == ("FAILED", "PREEMPTED")
    assert "saved and given back" in saved["error"]
    assert [step["step"] for step in saved["history"]] == [1, 2, 3]

    # What SIGTERM had saved is of the third epoch, which could not be done again.
    held["SLOW_HOLD"] = f"2={tmp_path / 'never'},5={second}"
    again = start("keras", "resume", "keras", env=held)
    wait_until(lambda: reached(again) == 5, "five epochs")
    os.kill(status_of(again)["workers"][0]["pid"], signal.SIGKILL)
    wait_until(lambda: len(again.rows()) == 3, "its actor is missed")
    second.touch()
    status, out, err = again.wait()
    assert status == 0, out + err
    assert_nothing_left(run.runs)
    rows = again.read("trials")
    ends = [(row["state"], row["failure"]) for row in rows]
    assert ends == [("FAILED", "PREEMPTED")] * 2 + [("COMPLETED", None)]
    assert [step["step"] for step in rows[2]["history"]] == [1, 2, 3, 4, 5, 6]
    folder = run.runs / "keras"
    assert rows[1]["history"][:3] == saved["history"]
    log = (folder / "logs" / "trial-0000-3.log").read_text()
    assert "Epoch 6/6" in log and "Epoch 4/6" not in log
    assert [path.name for path in (folder / "weights").iterdir()] == ["0000.weights.h5"]
    assert run.read("best")["test"]["accuracy"] > 0


@pytest.mark.ray
def test_sigterm_to_all_processes_leaves_trials_their_grace(start: Start) -> None:
    study = str(STUDIES / "slow.py")
    options = ("--trials", "2", "--workers", "1", "--grace", LONG, "--id", "slow")
    run = start("slow", "run", study, *RAY, *options, held=True)
    run.busy_worker()
    # As Ray ends a job.
    for pid in (status_of(run)["chief"]["pid"], run.process.pid):
        os.kill(pid, signal.SIGTERM)
    run.wait_for_log("draining")
    run.release()
    status, out, err = run.wait()
    assert status == 75 and "LOST" not in out, out + err
    assert_nothing_left(run.runs)
    (first, *_) = run.read("trials")
    assert (first["attempt"], first["state"]) == (1, "COMPLETED")


@pytest.mark.ray
def test_sigterm_puts_back_what_outlasts_the_grace(start: Start) -> None:
    study = str(STUDIES / "slow.py")
    options = ("--trials", "4", "--grace", "1", "--id", "slow")
    run = start("slow", "run", study, *RAY, *options, held=True)
    run.busy_worker()
    run.process.send_signal(signal.SIGTERM)
    # Its trials would never end by themselves.
    status, out, err = run.wait()
    assert status == 75, out + err
    assert "within 1 s" in out
    assert_nothing_left(run.runs)
    assert {row["failure"] for row in run.read("trials") if row["state"] != "WAITING"} == {
        "PREEMPTED"
    }


def status_of(run: LiveRun) -> dict[str, Any]:
    """The status of a run that has begun."""
    status = run.status()
    assert status
    return status


def completed(run: LiveRun) -> list[dict[str, Any]]:
    """The attempts that completed."""
    return [row for row in run.rows() if row["state"] == "COMPLETED"]


def reached(run: LiveRun) -> int:
    """How many steps the attempt that runs has reported; 0 where none runs."""
    running = [row for row in run.rows() if row["state"] == "RUNNING"]
    return len(running[-1]["history"]) if running else 0


def ctrl_c(run: LiveRun) -> None:
    """What a terminal does: all of the foreground's processes are told, not `run` alone."""
    group = os.getpgid(run.process.pid)
    for pid in {run.process.pid, *processes_of(str(run.runs))}:
        with contextlib.suppress(ProcessLookupError):
            if os.getpgid(pid) == group:
                os.kill(pid, signal.SIGINT)


# --- without Ray --------------------------------------------------------------------------


def test_a_leader_is_the_only_process_that_is_started() -> None:
    assert load_engine("ray").roles(4) == ["chief"]


def test_a_worker_by_hand_is_told_what_to_do_instead(tmp_path: pathlib.Path) -> None:
    role = {"KERASTUNER_TUNER_ID": "w", "KERASTUNER_ORACLE_IP": "127.0.0.1"}
    role |= {"KERASTUNER_ORACLE_PORT": "1", "TUNEFLEET_TOKEN_FILE": str(tmp_path / "token")}
    done = launch("run", "digits", *RAY, "--runs", str(tmp_path), env=role)
    assert done.returncode == 2
    assert "ray start" in done.stderr and done.stderr.count("\n") == 1


BIG, SMALL = Node(8, 4), Node(3, 1)


@pytest.mark.parametrize(
    ("nodes", "workers", "each", "expected", "most"),
    [
        ([Node(8)], 2, None, Share(4, 0.0), 2),
        ([Node(3), Node(3)], 3, None, Share(1, 0.0), 6),
        ([BIG], 2, None, Share(4, 1.0), 2),
        ([BIG, SMALL], 5, 1, Share(2, 1.0), 5),
        ([BIG], 2, 2, Share(4, 2.0), 2),
        ([BIG], 8, None, Share(1, 0.5), 8),
        ([BIG], 4, 0, Share(2, 0.0), 4),
    ],
)
def test_workers_share_a_cluster_evenly(
    nodes: list[Node], workers: int, each: int | None, expected: Share, most: int
) -> None:
    assert share(nodes, workers, each, "it") == expected
    assert fitting(nodes, expected.cpus, expected.gpus) == most


@pytest.mark.parametrize(
    ("nodes", "workers", "each", "words"),
    [
        ([Node(2)], 3, None, "--workers 3: it has room for 2 workers of 1 CPU each"),
        ([BIG], 2, 3, "room for 1 workers of 1 CPU and 3 GPU each"),
        ([], 1, None, "room for 0 workers"),
    ],
)
def test_more_workers_than_a_cluster_has_room_for_are_refused(
    nodes: list[Node], workers: int, each: int | None, words: str
) -> None:
    with pytest.raises(UsageError, match="room for") as refused:
        share(nodes, workers, each, "it")
    assert words in str(refused.value)
