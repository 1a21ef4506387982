"""Whole searches from the command line: what they leave, and that they can be repeated."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from hpo.tensorboard.server import serve
from tests.support.cli_runs import (
    PATIENCE_S,
    ROOT,
    STUDIES,
    LiveRun,
    assert_nothing_left,
    launch,
    points,
    processes_of,
    read,
    wait_until,
)
from tests.support.hparams_client import Page, metrics_of

GRID = str(STUDIES / "small_grid.py")
FUNCTION = str(ROOT / "examples" / "plain_function.py")


def trials(runs: pathlib.Path, run_id: str) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = read(runs, run_id, "trials")
    return rows


def run(runs: pathlib.Path, run_id: str, *arguments: str) -> list[dict[str, object]]:
    """The attempts of a finished search."""
    done = launch("run", *arguments, "--id", run_id, "--runs", str(runs))
    assert done.returncode == 0, done.stderr + done.stdout
    assert done.stdout.splitlines()[0] == f"run {run_id}"
    return trials(runs, run_id)


@pytest.mark.parametrize("sampler", ["random", "grid"])
def test_the_points_depend_on_the_seed_and_not_on_the_workers(
    tmp_path: pathlib.Path, sampler: str
) -> None:
    options = (GRID, "--sampler", sampler, "--trials", "9", "--seed", "0")
    one = run(tmp_path, "one", *options, "--workers", "1")
    four = run(tmp_path, "four", *options, "--workers", "4")
    other = run(tmp_path, "other", *options[:-1], "1", "--workers", "2")
    assert points(one) == points(four)
    assert (points(one) == points(other)) is (sampler == "grid")
    assert [row["value"] for row in one] == [row["value"] for row in four]


def test_grid_runs_every_point_once_and_is_done(tmp_path: pathlib.Path) -> None:
    rows = run(tmp_path, "all", GRID, "--sampler", "grid")
    assert len(rows) == 12
    assert len({point for _, point in points(rows)}) == 12
    assert {row["state"] for row in rows} == {"COMPLETED"}
    status = read(tmp_path, "all", "status")
    assert status["state"] == "DONE"
    assert status["trials"]["wanted"] == 12


def test_random_in_a_space_smaller_than_the_trials_ends_done(tmp_path: pathlib.Path) -> None:
    study = tmp_path / "tiny.py"
    study.write_text(
        "OBJECTIVE = 'loss'\n"
        "def evaluate(hp, report):\n"
        "    report(1, {'loss': hp.Int('n', 1, 4) * (1 + hp.Boolean('b'))})\n"
        "    return {}\n"
    )
    rows = run(tmp_path, "tiny", str(study), "--trials", "20")
    assert len(points(rows)) == 8


def test_a_hosted_sampler_that_is_killed_with_its_chief_goes_on(
    tmp_path: pathlib.Path, start: Callable[..., LiveRun]
) -> None:
    command = ("run", FUNCTION, "--sampler", "kt-hyperband", "--epochs", "9", "--seed", "2")
    run = start("halved", *command, "--id", "halved", "--workers", "1")
    wait_until(lambda: (run.status() or {"trials": {}})["trials"].get("completed", 0) > 2, "some")
    os.kill((run.status() or {})["chief"]["pid"], signal.SIGKILL)
    status, out, err = run.wait()
    assert status == 0, out + err
    whole = launch("run", *command[1:], "--id", "whole", "--workers", "1", "--runs", str(run.runs))
    assert whole.returncode == 0, whole.stderr
    rows, others = run.read("trials"), trials(run.runs, "whole")
    assert points([row for row in rows if row["state"] == "COMPLETED"]) == points(others)  # type: ignore[arg-type]
    assert len(others) == 23
    assert {len(row["history"]) for row in others} == {1, 3, 9}  # type: ignore[arg-type]
    assert "HyperbandOracle 1." in str(others[0]["sampler_impl"])


def test_a_sampler_that_ends_early_is_done(tmp_path: pathlib.Path) -> None:
    """KerasTuner's random search gives up when it meets what it tried too often."""
    study = tmp_path / "tiny.py"
    study.write_text(
        "OBJECTIVE = 'loss'\n"
        "def evaluate(hp, report):\n"
        "    report(1, {'loss': hp.Int('n', 1, 3) / 1})\n"
        "    return {}\n"
    )
    options = ("--sampler", "kt-bayesian", "--trials", "3", "--id", "tiny")
    done = launch("run", str(study), *options, "--runs", str(tmp_path))
    assert done.returncode == 0, done.stderr
    status = read(tmp_path, "tiny", "status")
    assert status["state"] == "DONE"


def test_given_points_come_first_and_are_not_repeated(tmp_path: pathlib.Path) -> None:
    given = [{"kind": "a", "rate": 0.5}, {"rate": 0.25, "extra": 2, "kind": "b"}]
    (tmp_path / "points.json").write_text(json.dumps([*given, given[0]]))
    options = (GRID, "--trials", "5", "--seed", "4", "--start", str(tmp_path / "points.json"))
    rows = run(tmp_path, "begun", *options)
    assert [row["params"] for row in rows[:2]] == given
    assert "a given starting point" in str(rows[1]["sampler_impl"])
    assert "given" not in str(rows[2]["sampler_impl"])
    alone = run(tmp_path, "alone", GRID, "--trials", "5", "--seed", "4")
    assert points(rows)[2:] == points(alone)[2:]
    again = launch("run", *options, "--id", "begun", "--runs", str(tmp_path))
    assert again.returncode == 0, again.stderr


def test_a_trial_that_takes_too_long_is_ended_with_its_children(tmp_path: pathlib.Path) -> None:
    study = tmp_path / "endless.py"
    study.write_text(
        "import subprocess, time\n"
        "OBJECTIVE = 'loss'\n"
        "def evaluate(hp, report):\n"
        "    endless = hp.Boolean('endless')\n"
        "    report(1, {'loss': 1.0})\n"
        "    if endless:\n"
        "        subprocess.run(['sleep', '12345.678'])\n"
        "    return {}\n"
    )
    options = ("--sampler", "grid", "--trial-timeout", "2", "--lease", "3", "--id", "endless")
    done = launch("run", str(study), *options, "--runs", str(tmp_path))
    assert done.returncode == 0, done.stderr
    by_point = {row["params"]["endless"]: row for row in trials(tmp_path, "endless")}  # type: ignore[index]
    assert by_point[False]["state"] == "COMPLETED"
    assert (by_point[True]["state"], by_point[True]["failure"]) == ("FAILED", "TIMEOUT")
    assert "longer than 2 s" in str(by_point[True]["error"])
    assert processes_of("12345.678") == []


def test_a_finished_run_with_the_same_request_is_not_run_again(tmp_path: pathlib.Path) -> None:
    options = (FUNCTION, "--trials", "3", "--seed", "5")
    first = run(tmp_path, "same", *options)
    again = run(tmp_path, "same", *options)
    assert again == first


def test_epochs_cap_the_steps_of_a_function(tmp_path: pathlib.Path) -> None:
    rows = run(tmp_path, "capped", FUNCTION, "--trials", "2", "--epochs", "3")
    assert [len(row["history"]) for row in rows] == [3, 3]  # type: ignore[arg-type]
    assert rows[0]["history"][0]["step"] == 1  # type: ignore[index]


def test_a_keras_study_repeats_to_the_last_digit(tmp_path: pathlib.Path) -> None:
    options = ("digits", "--trials", "2", "--seed", "3", "--workers", "1")
    first = run(tmp_path, "first", *options)
    second = run(tmp_path, "second", *options)
    strip = ("params", "value", "history", "seed", "state")
    assert [[row[k] for k in strip] for row in first] == [[row[k] for k in strip] for row in second]
    said = launch("run", *options, "--id", "first", "--runs", str(tmp_path)).stdout
    assert "run first DONE: 2 of 2 trials" in said
    assert "on the test set: accuracy=0." in said
    best = read(tmp_path, "first", "best")
    assert 0.5 < best["test"]["accuracy"] <= 1.0
    assert best["test"]["loss"] > 0


def test_a_persons_own_keras_file_is_seen_in_tensorboard(tmp_path: pathlib.Path) -> None:
    study = str(ROOT / "examples" / "keras_model.py")
    rows = run(tmp_path, "own", study, "--trials", "3", "--epochs", "2", "--workers", "1")
    assert {row["state"] for row in rows} == {"COMPLETED"}
    with serve({"own": tmp_path / "own" / "tensorboard"}) as server:
        shown = Page(server).rows(wanted=3)
    for row in rows:
        group = shown[f"trial-{row['trial_id']}"]
        assert group["hparams"]["units"] == row["params"]["units"]  # type: ignore[index]
        assert metrics_of(group)["best_val_accuracy"] == (2, row["value"])


def test_a_study_that_runs_operations_on_import_gets_a_fresh_process(
    tmp_path: pathlib.Path,
) -> None:
    rows = run(tmp_path, "eager", str(STUDIES / "eager.py"), "--trials", "1", "--workers", "1")
    assert rows[0]["state"] == "COMPLETED"


def test_each_kind_of_failure_is_told_apart(tmp_path: pathlib.Path) -> None:
    study = str(STUDIES / "failing.py")
    done = launch("run", study, "--sampler", "grid", "--id", "fails", "--runs", str(tmp_path))
    assert done.returncode == 0, done.stderr
    by_way = {row["params"]["way"]: row for row in trials(tmp_path, "fails")}  # type: ignore[index]
    states = {way: (row["state"], row["failure"]) for way, row in by_way.items()}
    assert states == {
        "raise": ("FAILED", "CODE"),
        "nan": ("FAILED", "NAN"),
        "nothing": ("FAILED", "CODE"),
        "die": ("FAILED", "CODE"),
        "fine": ("COMPLETED", None),
    }
    assert "ValueError: this point cannot be" in by_way["raise"]["error"]  # type: ignore[operator]
    assert "SIGKILL" in by_way["die"]["error"]  # type: ignore[operator]
    assert "'loss' was never reported" in by_way["nothing"]["error"]  # type: ignore[operator]
    assert by_way["fine"]["value"] == 1.0


def test_a_search_in_which_nothing_completes_says_so(tmp_path: pathlib.Path) -> None:
    study = tmp_path / "broken.py"
    study.write_text(
        "OBJECTIVE = 'loss'\n"
        "def evaluate(hp, report):\n"
        "    hp.Int('n', 1, 3)\n"
        "    report(1, {'loss': 1.0})\n"
        "    raise RuntimeError('always')\n"
    )
    done = launch("run", str(study), "--id", "broken", "--runs", str(tmp_path))
    assert done.returncode == 1
    assert "always" in done.stdout + done.stderr
    status = read(tmp_path, "broken", "status")
    assert status["state"] == "FAILED"
    assert status["failures"]["CODE"] >= 3


def test_resume_with_more_trials(tmp_path: pathlib.Path) -> None:
    first = run(tmp_path, "more", FUNCTION, "--trials", "2", "--seed", "1")
    done = launch("resume", "more", "--trials", "+3", "--runs", str(tmp_path))
    assert done.returncode == 0, done.stderr
    rows = trials(tmp_path, "more")
    assert len(rows) == 5
    assert rows[:2] == first


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (("--trials", "+3", "--gpus-per-worker", "64"), "needs 128 GPUs"),
        (("--trials", "1"), "run more is to have 2: give +N"),
    ],
)
def test_a_resume_that_is_refused_changes_nothing(
    tmp_path: pathlib.Path, typed: tuple[str, ...], said: str
) -> None:
    run(tmp_path, "more", FUNCTION, "--trials", "2", "--seed", "1")
    refused = launch("resume", "more", *typed, "--runs", str(tmp_path))
    assert refused.returncode == 2 and said in refused.stderr, refused.stderr
    assert read(tmp_path, "more", "status")["trials"]["wanted"] == 2


def test_an_edited_study_goes_on_as_it_was(
    tmp_path: pathlib.Path, start: Callable[..., LiveRun]
) -> None:
    study = tmp_path / "edited.py"
    study.write_text((STUDIES / "slow.py").read_text())
    first = run(tmp_path, "edited", str(study), "--trials", "1")
    study.write_text("raise SystemExit('edited')\n")
    done = launch("resume", "edited", "--trials", "+1", "--runs", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert trials(tmp_path, "edited")[:1] == first


def test_a_persons_own_folder_cannot_hide_the_project_or_the_library(
    tmp_path: pathlib.Path,
) -> None:
    """Studies run where they were started, next to whatever lies there."""
    (tmp_path / "hpo").mkdir()
    (tmp_path / "hpo" / "__init__.py").write_text("")
    (tmp_path / "queue.py").write_text("raise RuntimeError('not this one')\n")
    (tmp_path / "data.csv").write_text("3\n")
    (tmp_path / "beside.py").write_text("OFFSET = 4\n")
    (tmp_path / "mine.py").write_text(
        "import beside\n"
        "OBJECTIVE = 'loss'\n"
        "READ = int(open('data.csv').read())\n"
        "def evaluate(hp, report):\n"
        "    report(1, {'loss': READ + beside.OFFSET + 0 * hp.Int('n', 1, 9)})\n"
        "    return {}\n"
    )
    done = subprocess.run(
        [sys.executable, str(ROOT / "launch.py"), "run", "mine.py", "--trials", "2", "--id", "x"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert {row["value"] for row in trials(tmp_path / "runs", "x")} == {7.0}


def test_the_same_request_twice_at_once_is_one_search(tmp_path: pathlib.Path) -> None:
    slow = str(STUDIES / "slow.py")
    command = ["run", slow, "--trials", "4", "--seed", "1", "--id", "same", "--runs", str(tmp_path)]
    both = [
        subprocess.Popen(
            [sys.executable, "launch.py", *command],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=PATIENCE_S) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    rows = trials(tmp_path, "same")
    assert [row["attempt"] for row in rows] == [1] * 4


def test_a_search_that_is_told_to_end_while_it_reads_leaves_nothing(
    tmp_path: pathlib.Path, start: Callable[..., LiveRun]
) -> None:
    study = tmp_path / "long.py"
    study.write_text("import time\ntime.sleep(60)\n")
    run = start("long", "run", str(study), "--id", "long")
    wait_until(lambda: len(run.processes()) >= 3, "the study is being read")
    run.process.terminate()
    assert run.wait()[0] == 75
    assert_nothing_left(run.runs)


def test_more_trials_for_a_run_that_is_under_way_are_refused(
    start: Callable[..., LiveRun],
) -> None:
    run = start("slow", "run", str(STUDIES / "slow.py"), "--id", "slow", held=True)
    run.busy_worker()
    refused = launch("resume", "slow", "--trials", "+4", "--runs", str(run.runs))
    assert refused.returncode == 2
    assert "is running" in refused.stderr
