"""The verbs that read, as processes over run folders that a real ledger writer has made."""

from __future__ import annotations

import contextlib
import math
import pathlib
import subprocess
import sys
import time
from typing import Any

import pytest

from hpo.ledger import LedgerWriter
from hpo.study import Form
from hpo.trial import Failure
from tests.support.cli_runs import PATIENCE_S, ROOT, launch
from tests.support.written_runs import (
    KERAS,
    STATUS_KEYS,
    TRACEBACK,
    Book,
    save_weights,
    say,
    strict,
)

TRIAL_KEYS = [
    "trial_id",
    "attempt",
    "state",
    "failure",
    "params",
    "value",
    "history",
    "engine",
    "sampler",
    "sampler_impl",
    "seed",
    "worker",
    "device",
    "queued_at",
    "started_at",
    "ended_at",
    "error",
]


def read(verb: str, book: Book) -> Any:
    done = say(verb, book, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return strict(done.stdout)


def elapsed(book: Book) -> float:
    """The seconds for which its chief has served by now, as precise as they are printed."""
    (session,) = book.run.reader().sessions()
    return round(time.time() - float(session["started_at"]), 3)


def test_status_of_a_live_run_has_the_documented_shape(live: Book) -> None:
    before = elapsed(live)
    found = read("status", live)
    assert before <= found["elapsed_s"] <= elapsed(live)
    assert list(found) == STATUS_KEYS
    assert {name: found[name] for name in STATUS_KEYS[:6]} == {
        "id": "living",
        "study": "book",
        "engine": "keras-tuner",
        "sampler": "random",
        "pruner": "none",
        "state": "RUNNING",
    }
    assert found["trials"] == {
        "wanted": 10,
        "waiting": 1,
        "running": 1,
        "completed": 2,
        "pruned": 0,
        "failed": 2,
    }
    assert found["failures"] == {"PREEMPTED": 1, "OOM": 0, "NAN": 1, "TIMEOUT": 0, "CODE": 1}
    assert found["best"] == {"trial_id": "0002", "value": 0.95, "params": {"rate": 0.02}}
    assert 0 < found["utilization"] <= 1
    assert found["chief"] == {"host": "here", "pid": 4711, "address": "127.0.0.1:4712"}
    assert found["workers"] == [
        {
            "id": "worker-0",
            "host": "there",
            "pid": 11,
            "device": "cpu:0",
            "state": "RUNNING",
            "trial_id": "0003",
        }
    ]


def test_a_run_whose_processes_are_gone_is_stopped(ended: Book) -> None:
    found = read("status", ended)
    assert found["state"] == "STOPPED"
    assert found["chief"] == {"host": None, "pid": None, "address": None}
    assert found["workers"] == []


def test_noting_the_test_figures_does_not_look_like_a_chief(ended: Book) -> None:
    with contextlib.closing(LedgerWriter(ended.run.folder)):
        assert read("status", ended)["state"] == "STOPPED"


@pytest.mark.parametrize(
    ("outcomes", "state", "status"), [([True, False], "DONE", 0), ([False, False], "FAILED", 1)]
)
def test_a_run_that_tried_all_is_done_if_any_trial_completed(
    tmp_path: pathlib.Path, outcomes: list[bool], state: str, status: int
) -> None:
    book = Book(tmp_path / "runs", "all", wanted=2)
    for trial, completes in enumerate(outcomes):
        attempt = book.report(book.start(trial), [0.5])
        book.end(attempt, None if completes else Failure.CODE, None if completes else "no")
    book.close()
    assert read("status", book)["state"] == state
    assert say("watch", book).returncode == status


def test_of_equal_trials_the_one_that_ended_first_is_best(tmp_path: pathlib.Path) -> None:
    book = Book(tmp_path / "runs", "tie")
    early, late = book.report(book.start(1), [0.5]), book.report(book.start(0), [0.5])
    book.end(early)
    book.end(late)
    book.close()
    assert read("status", book)["best"]["trial_id"] == "0001"


def test_status_for_a_person_says_the_same(live: Book, ended: Book) -> None:
    text = say("status", live).stdout
    for part in ("living  RUNNING", "4 of 10 ended", "CODE 1", "0.95", "rate=0.02", "trial 0003"):
        assert part in text
    assert "resume finished" in say("status", ended).stdout
    assert len(text.splitlines()) < 24


def test_list_gives_short_status_objects(live: Book) -> None:
    runs = str(live.run.folder.parent)
    found = strict(launch("list", "--json", "--runs", runs).stdout)
    assert [row["id"] for row in found] == ["living"]
    short = ["id", "study", "engine", "sampler", "pruner", "state", "trials", "best", "elapsed_s"]
    assert list(found[0]) == short
    header, row = launch("list", "--runs", runs).stdout.splitlines()
    assert header.split()[:3] == ["run", "state", "ended"]
    assert row.split()[:4] == ["living", "RUNNING", "4/10", "0.95"]


def test_list_of_nothing_says_what_to_do(tmp_path: pathlib.Path) -> None:
    assert strict(launch("list", "--json", "--runs", str(tmp_path)).stdout) == []
    assert "launch.py run" in launch("list", "--runs", str(tmp_path)).stdout


def test_trials_gives_one_object_a_line_for_each_attempt(live: Book) -> None:
    done = say("trials", live, "--json")
    rows = [strict(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0 and len(rows) == 7
    assert all(list(row) == TRIAL_KEYS for row in rows)
    by_key = {(row["trial_id"], row["attempt"]): row for row in rows}
    first, lost, again = by_key["0000", 1], by_key["0002", 1], by_key["0002", 2]
    assert (first["state"], first["failure"], first["value"]) == ("COMPLETED", None, 0.9)
    assert first["history"][1] == {"step": 2, "metrics": {"val_accuracy": 0.9, "loss": 0.5}}
    assert first["queued_at"] == "2023-11-14T22:13:20.000Z"
    assert (lost["state"], lost["failure"], lost["worker"]) == ("FAILED", "PREEMPTED", "worker-1")
    assert (again["state"], again["value"]) == ("COMPLETED", 0.95)
    assert by_key["0001", 1]["error"] == TRACEBACK
    assert (by_key["0003", 1]["state"], by_key["0003", 1]["ended_at"]) == ("RUNNING", None)
    assert by_key["0004", 1]["worker"] is None
    # JSON has no NaN.
    assert by_key["0005", 1]["history"][1]["metrics"]["val_accuracy"] is None


def test_trials_for_a_person_is_a_table(live: Book) -> None:
    header, *rows = say("trials", live).stdout.splitlines()
    assert header.split()[:4] == ["trial", "attempt", "state", "val_accuracy"]
    assert len(rows) == 7
    assert rows[0].split()[:5] == ["0000", "1", "COMPLETED", "0.9", "3"]
    assert "FAILED CODE" in rows[1] and "ValueError: the [rate] is too high" in rows[1]


def test_a_reader_of_a_pipe_may_leave_early(live: Book) -> None:
    command = f"{sys.executable} launch.py trials living --json --runs {live.run.folder.parent}"
    done = subprocess.run(
        f"{command} | head -c 10", shell=True, cwd=ROOT, capture_output=True, timeout=PATIENCE_S
    )
    assert (len(done.stdout), done.stderr) == (10, b"")


def test_best_has_the_documented_shape(live: Book) -> None:
    best = {"trial_id": "0002", "value": 0.95, "params": {"rate": 0.02}, "test": None}
    assert read("best", live) == best
    text = say("best", live).stdout.split()
    assert text == ["trial", "0002", "val_accuracy", "0.95", "fit", "41", "s", "rate", "0.02"]


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_best_without_a_completed_trial_is_refused(
    tmp_path: pathlib.Path, arguments: tuple[str, ...]
) -> None:
    book = Book(tmp_path / "runs", "young")
    book.report(book.start(0), [0.5])
    book.close()
    done = say("best", book, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1 and "no completed trial" in done.stderr


@pytest.fixture
def trained(tmp_path: pathlib.Path) -> Book:
    """A run of a Keras study with one completed trial; its weights are not there yet."""
    book = Book(tmp_path / "runs", "trained", text=KERAS, form=Form.KERAS)
    book.end(book.report(book.start(0), [0.75]))
    return book


def test_best_evaluates_the_winner_once_and_remembers_it(trained: Book) -> None:
    weights = trained.run.weights / "0000.weights.h5"
    save_weights(weights)
    going_on = say("best", trained, "--json")
    assert strict(going_on.stdout)["test"] is None
    assert "search is over" in going_on.stderr
    trained.close()
    test = read("best", trained)["test"]
    assert list(test) == ["accuracy", "loss"]
    # Right for three of the four test examples.
    assert test["accuracy"] == 0.75
    logits = [(1, 1), (1, 1), (2, 1), (2, -1)]
    loss = sum(math.log1p(math.exp(-2 * size * sign)) for size, sign in logits) / 4
    assert test["loss"] == pytest.approx(loss, rel=1e-5)
    weights.unlink()
    assert read("best", trained)["test"] == test
    assert "accuracy=0.75" in say("best", trained).stdout
    assert "accuracy=0.75" in say("watch", trained).stdout


def test_best_without_test_figures_says_why(trained: Book, tmp_path: pathlib.Path) -> None:
    trained.close()
    done = say("best", trained, "--json")
    assert done.returncode == 0 and strict(done.stdout)["test"] is None
    assert "weights were not kept" in done.stderr
    (trained.run.weights / "0000.weights.h5").write_bytes(b"no weights")
    (tmp_path / "keras.py").write_text("raise ImportError('there is no Keras here')\n")
    done = say("best", trained, "--json", env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 0 and strict(done.stdout)["value"] == 0.75
    assert "there is no Keras here" in done.stderr and len(done.stderr.splitlines()) == 1
