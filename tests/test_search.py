"""Whole searches from the command line: what they leave, and that they can be repeated."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable

import pytest

from hpo.tensorboard_server import serve
from tests.hparams_page import Page, metrics_of
from tests.live import ROOT, STUDIES, LiveRun, launch, points

GRID = str(STUDIES / "small_grid.py")
FUNCTION = str(ROOT / "examples" / "plain_function.py")


def trials(runs: pathlib.Path, run_id: str) -> list[dict[str, object]]:
    done = launch("trials", run_id, "--json", "--runs", str(runs))
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


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
    status = json.loads(launch("status", "all", "--json", "--runs", str(tmp_path)).stdout)
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
    best = json.loads(launch("best", "first", "--json", "--runs", str(tmp_path)).stdout)
    assert 0.5 < best["test"]["accuracy"] <= 1.0
    assert best["test"]["loss"] > 0


def test_a_persons_own_keras_file_is_seen_in_tensorboard(tmp_path: pathlib.Path) -> None:
    study = str(ROOT / "examples" / "keras_model.py")
    rows = run(tmp_path, "own", study, "--trials", "3", "--epochs", "2")
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
    status = json.loads(launch("status", "broken", "--json", "--runs", str(tmp_path)).stdout)
    assert status["state"] == "FAILED"
    assert status["failures"]["CODE"] == 3


def test_resume_with_more_trials(tmp_path: pathlib.Path) -> None:
    first = run(tmp_path, "more", FUNCTION, "--trials", "2", "--seed", "1")
    done = launch("resume", "more", "--trials", "+3", "--runs", str(tmp_path))
    assert done.returncode == 0, done.stderr
    rows = trials(tmp_path, "more")
    assert len(rows) == 5
    assert rows[:2] == first


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
