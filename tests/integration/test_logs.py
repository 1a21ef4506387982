"""The verb `logs`, over run folders that a real ledger writer has made."""

from __future__ import annotations

import pathlib

import pytest

from tests.support.cli_runs import PATIENCE_S, launch
from tests.support.written_runs import (
    TRACEBACK,
    Book,
    background,
    say,
    strict,
)


@pytest.mark.parametrize("verb", ["status", "trials", "best", "logs", "watch", "tensorboard"])
def test_an_unknown_run_is_refused_with_what_is_near(verb: str, ended: Book) -> None:
    done = launch(verb, "finnished", "--runs", str(ended.run.folder.parent))
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean 'finished'?" in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "text"),
    [((), "the chief served"), (("worker-0",), "the worker worked"), (("0002",), "Epoch 1/1")],
)
def test_logs_shows_the_chief_a_worker_or_a_trial(
    ended: Book, name: tuple[str, ...], text: str
) -> None:
    done = say("logs", ended, *name)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, text, "")


def test_the_log_of_a_failed_trial_ends_with_its_error(ended: Book) -> None:
    done = say("logs", ended, "0001")
    assert (done.returncode, done.stdout.strip()) == (0, TRACEBACK)
    assert "printed nothing" in done.stderr


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("0003", "runs on worker-0"),
        ("0004", "waits for a worker"),
        ("worker-1", "has no log here"),
        ("worker-3", "did you mean 'worker-"),
        ("9999", "trials 0000 to 0005"),
        ("../token", "known: chief"),
    ],
)
def test_a_log_that_is_not_there_is_explained(live: Book, name: str, why: str) -> None:
    done = say("logs", live, name)
    assert (done.returncode, done.stdout) == (2, "")
    assert why in done.stderr and len(done.stderr.splitlines()) == 1


def test_logs_are_followed_until_the_run_ends(tmp_path: pathlib.Path) -> None:
    book = Book(tmp_path / "runs", "talking")
    runs = str(tmp_path / "runs")
    attempt = book.start(0)
    log = book.run.logs / "chief.log"
    log.write_text("one\n")
    with (
        background("logs", "talking", "-f", "--runs", runs) as chief,
        background("logs", "talking", "0000", "-f", "--runs", runs) as trial,
    ):
        assert chief.stdout and chief.stdout.readline() == "one\n"
        with log.open("a") as file:
            file.write("two\n")
        assert chief.stdout.readline() == "two\n"
        assert trial.poll() is None
        book.run.trial_log("0000", 1).write_text("all of it\n")
        book.end(attempt)
        assert trial.communicate(timeout=PATIENCE_S)[0] == "all of it\n"
        assert chief.poll() is None
        book.close()
        assert chief.communicate(timeout=PATIENCE_S)[0] == ""
        assert (chief.returncode, trial.returncode) == (0, 0)


def test_logs_as_json_are_an_object_a_line(tmp_path: pathlib.Path, ended: Book) -> None:
    book = Book(tmp_path / "runs", "talking")
    log = book.run.logs / "chief.log"
    log.write_bytes(b"one\ntw")
    with background("logs", "talking", "-f", "--json", "--runs", str(tmp_path / "runs")) as process:
        assert process.stdout
        assert strict(process.stdout.readline()) == {"source": "chief", "line": "one"}
        with log.open("ab") as file:
            file.write("o ö\n\n\xff end".encode("latin-1"))
        assert strict(process.stdout.readline())["line"] == "two \ufffd"
        book.close()
        assert [strict(line)["line"] for line in process.stdout] == ["", "\ufffd end"]
        assert process.wait(PATIENCE_S) == 0
    done = say("logs", ended, "0001", "--json")
    rows = [strict(line) for line in done.stdout.splitlines()]
    assert [row["line"] for row in rows] == TRACEBACK.splitlines()
    assert {row["source"] for row in rows} == {"0001"}
