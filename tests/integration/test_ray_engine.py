"""Engine `ray`, with the real Ray: its trials, and whatever can happen to its processes.

Ray takes seconds to start, so each search here answers several questions.
"""

from __future__ import annotations

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
    STUDIES,
    LiveRun,
    assert_nothing_left,
    launch,
    points,
    wait_for_end,
    wait_until,
)

RAY = ("--engine", "ray", "--seed", "1")
Start = Callable[..., LiveRun]


def busy_actor(run: LiveRun) -> dict[str, Any]:
    """A worker in the middle of a trial, with the process that its actor is by now."""
    busy = run.busy_worker()
    workers: list[dict[str, Any]] = run.read("status")["workers"]
    return next(worker for worker in workers if worker["id"] == busy["id"])


@pytest.mark.ray
def test_every_point_of_a_grid_once_whatever_happens_to_it(start: Start) -> None:
    study = str(STUDIES / "troubled.py")
    run = start("grid", "run", study, *RAY, "--id", "grid", "--sampler", "grid", "--workers", "4")
    worker = busy_actor(run)
    os.kill(worker["pid"], signal.SIGKILL)
    status, out, err = run.wait()
    assert status == 0, out + err
    rows = run.read("trials")
    assert len({point for _, point in points(rows)}) == len(points(rows)) == 10
    ends: dict[str, list[tuple[str, str]]] = {}
    for row in rows:
        ends.setdefault(row["trial_id"], []).append((row["state"], row["failure"]))
        assert row["engine"] == "ray"
    lost = [row for row in rows if row["failure"] == "PREEMPTED"]
    # By the time that it was killed its actor may have had another trial.
    assert [row["worker"] for row in lost] == [worker["id"]]
    code, done = ("FAILED", "CODE"), ("COMPLETED", None)
    expected = {"long": [done], "fine": [done], "raise": [code, code], "die": [code, code]}
    expected["nan"] = [("FAILED", "NAN")]
    for row in rows:
        found = [end for end in ends[row["trial_id"]] if end != ("FAILED", "PREEMPTED")]
        assert found == expected[row["params"]["way"]]
    words = {row["params"]["way"]: row["error"] for row in rows if row["error"]}
    assert "troubled.py" in words["raise"] and "ValueError: there is no" in words["raise"]
    assert "SIGKILL" in words["die"]
    assert "loss is nan at step 1" in words["nan"]
    assert_nothing_left(run.runs)


@pytest.mark.ray
def test_a_search_outlives_its_leader_and_then_its_run(start: Start) -> None:
    study = str(STUDIES / "slow.py")
    slowly = {"SLOW_STEP_S": "0.3"}
    options = ("--id", "slow", "--trials", "10", "--lease", "5")
    run = start("slow", "run", study, *RAY, *options, env=slowly)
    run.busy_worker()
    wait_until(lambda: (run.status() or {})["trials"]["completed"], "a completed trial")
    leader = (run.status() or {})["chief"]["pid"]
    os.kill(leader, signal.SIGKILL)
    wait_until(lambda: (run.status() or {})["chief"]["pid"] not in (None, leader), "another one")
    run.busy_worker()
    scaled = launch("scale", "slow", "--workers", "3", "--runs", str(run.runs))
    assert scaled.returncode == 0, scaled.stderr
    wait_until(lambda: len((run.status() or {})["workers"]) == 3, "three workers")
    run.process.kill()
    run.process.wait()
    wait_for_end(run.runs)
    before = [row for row in run.read("trials") if row["state"] == "COMPLETED"]
    resumed = LiveRun(run.runs, "slow", "resume", "slow", env=slowly)
    try:
        resumed.busy_worker()
        stopped = launch("stop", "slow", "--runs", str(run.runs))
        assert stopped.returncode == 0, stopped.stderr
        assert resumed.wait()[0] in (0, 75)
        assert_nothing_left(run.runs)
    finally:
        resumed.end()
    rows = run.read("trials")
    completed = [row for row in rows if row["state"] == "COMPLETED"]
    assert [row for row in completed if row in before] == before
    assert len(completed) == len(points(completed)) > len(before)
    assert all(row["failure"] in (None, "PREEMPTED") for row in rows)


@pytest.mark.ray
def test_a_keras_trial_goes_on_from_its_checkpoint_and_leaves_its_weights(start: Start) -> None:
    study = str(STUDIES / "slow_keras.py")
    options = ("--trials", "1", "--workers", "1", "--checkpoint-every", "2", "--id", "keras")
    run = start("keras", "run", study, *RAY, *options, env={"SLOW_EPOCH_S": "0.5"})

    def has_come_so_far() -> bool:
        rows = run.read("trials") if run.status() else []
        return any(row["state"] == "RUNNING" and len(row["history"]) >= 3 for row in rows)

    wait_until(has_come_so_far, "three epochs", timeout=150)
    os.kill((run.status() or {})["workers"][0]["pid"], signal.SIGKILL)
    status, out, err = run.wait()
    assert status == 0, out + err
    lost, completed = run.read("trials")
    assert (lost["failure"], completed["state"]) == ("PREEMPTED", "COMPLETED")
    assert [step["step"] for step in completed["history"]] == [1, 2, 3, 4, 5, 6]
    folder = run.runs / "keras"
    log = (folder / "logs" / "trial-0000-2.log").read_text()
    assert "Epoch 6/6" in log and "Epoch 2/6" not in log
    assert [path.name for path in (folder / "weights").iterdir()] == ["0000.weights.h5"]
    assert run.read("best")["test"]["accuracy"] > 0
    assert_nothing_left(run.runs)


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
