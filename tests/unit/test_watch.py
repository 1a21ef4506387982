"""What a person sees of a search while it runs, and the verb `watch`."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import pathlib
import pty
import signal
import time
import types
from collections.abc import Callable

import pytest

from cluster import cli
from cluster.progress import Progress
from cluster.verbs import reading
from hpo import status
from hpo.protocol import Attempt, StoreAttempt
from hpo.trial import Failure, TrialRecord, TrialState
from tests.support.cli_runs import PATIENCE_S, wait_until
from tests.support.written_runs import (
    STATUS_KEYS,
    TRACEBACK,
    Book,
    background,
    say,
    strict,
)


def test_progress_writes_a_line_for_each_attempt_that_ends(tmp_path: pathlib.Path) -> None:
    book, out = Book(tmp_path / "runs", "plain", wanted=4), io.StringIO()
    progress = Progress(book.run, out)

    def new_lines() -> list[str]:
        out.seek(0)
        out.truncate()
        progress.update()
        return out.getvalue().splitlines()

    first, second = book.report(book.start(0), [0.9123]), book.start(1)
    assert new_lines() == []
    book.end(second, Failure.CODE, TRACEBACK)
    assert new_lines() == [
        "trial 0001 FAILED CODE in 41 s (1/4): ValueError: the [rate] is too high"
    ]
    book.end(first)
    assert new_lines() == ["trial 0000 COMPLETED val_accuracy=0.9123 in 41 s (2/4, best 0.9123)"]
    # Handed out, lost, handed out again and ended between two looks.
    book.end(book.start(2), Failure.PREEMPTED, "worker worker-0 left", lost=True)
    book.end(book.report(book.start(2, attempt=2), [0.5]))
    assert sorted(new_lines()) == [
        "trial 0002 LOST, it will run again: worker worker-0 left",
        "trial 0002 attempt 2 COMPLETED val_accuracy=0.5 in 41 s (3/4, best 0.9123)",
    ]
    # A failed trial that is tried once more has not ended, and does not count twice.
    book.wait(1, attempt=2)
    assert new_lines() == []
    again = book.report(book.start(1, attempt=2), [0.95])
    assert new_lines() == []
    book.end(again)
    assert new_lines() == [
        "trial 0001 attempt 2 COMPLETED val_accuracy=0.95 in 41 s (3/4, best 0.95)"
    ]
    progress.close()
    book.close()


def test_progress_says_first_what_was_there_before(ended: Book) -> None:
    out = io.StringIO()
    progress = Progress(ended.run, out)
    progress.update()
    progress.close()
    assert out.getvalue() == "so far 4/10, best 0.95\n"


def test_progress_costs_the_same_with_many_trials(tmp_path: pathlib.Path) -> None:
    book = Book(tmp_path / "runs", "many", wanted=10_000)
    effects = []
    for trial in range(5000):
        record = TrialRecord(
            trial_id=f"{trial:04d}",
            attempt=1,
            state=TrialState.COMPLETED,
            params={"rate": 0.5},
            engine="keras-tuner",
            sampler="random",
            sampler_impl="random",
            seed=trial,
            study_digest=book.study.digest,
            value=0.5,
            asked_seq=trial,
            ended_seq=trial,
        )
        effects.append(StoreAttempt(Attempt(record, fence=trial + 1)))
    book.writer.commit(effects, time.time()).result()
    with contextlib.closing(book.run.reader()) as reader:
        to_read_all = min(cpu_seconds(reader.records) for _ in range(3))
    progress = Progress(book.run, io.StringIO())
    to_update = min(cpu_seconds(progress.update) for _ in range(50))
    # One that reads all of them again takes longer than only to read them.
    assert to_update < to_read_all / 3
    progress.close()
    book.close()


def cpu_seconds(do: Callable[[], object]) -> float:
    """The processor time that something takes here, which other processes do not change."""
    began = time.process_time()
    do()
    return time.process_time() - began


def test_watch_follows_a_run_to_its_end(tmp_path: pathlib.Path) -> None:
    book = Book(tmp_path / "runs", "watched")
    book.end(book.report(book.start(1), [0.4]))
    attempt = book.report(book.start(0), [0.5])
    with background("watch", "watched", "--runs", str(tmp_path / "runs")) as process:
        assert process.stdout and process.stdout.readline() == "run watched\n"
        # What ended before its first look it counts, and does not tell.
        assert process.stdout.readline() == "so far 1/10, best 0.4\n"
        book.end(attempt)
        line = process.stdout.readline()
        assert line == "trial 0000 COMPLETED val_accuracy=0.5 in 41 s (2/10, best 0.5)\n"
        book.close()
        rest = process.communicate(timeout=PATIENCE_S)[0]
    # The status of a search that was left with work to do.
    assert process.returncode == 75
    for part in ("watched STOPPED: 2 of 10", "best trial 0000: val_accuracy=0.5", "resume watched"):
        assert part in rest


def test_watch_as_json_is_a_status_at_each_change(tmp_path: pathlib.Path) -> None:
    book = Book(tmp_path / "runs", "watched")
    attempt = book.report(book.start(0), [0.5])
    with background("watch", "watched", "--json", "--runs", str(tmp_path / "runs")) as process:
        assert process.stdout
        first = strict(process.stdout.readline())
        assert (list(first), first["state"]) == (STATUS_KEYS, "RUNNING")
        book.end(attempt)
        second = strict(process.stdout.readline())
        assert (first["trials"]["running"], second["trials"]["completed"]) == (1, 1)
        book.close()
        (last,) = process.communicate(timeout=PATIENCE_S)[0].splitlines()
    assert (process.returncode, strict(last)["state"]) == (75, "STOPPED")
    done = say("watch", book, "--json")
    assert (done.returncode, len(done.stdout.splitlines())) == (75, 1)


def test_watch_as_json_says_nothing_of_time_alone(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    book = Book(tmp_path / "runs", "watched")
    attempt = book.report(book.start(0), [0.5])
    events = {4: lambda: book.end(attempt), 8: book.close}
    looks: list[float] = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        events.get(len(looks), lambda: None)()

    # A second goes by at each look at the clock.
    passing = itertools.count(time.time())
    monkeypatch.setattr(status, "time", types.SimpleNamespace(time=lambda: next(passing)))
    monkeypatch.setattr(reading, "time", types.SimpleNamespace(sleep=sleep))
    assert cli.main(["watch", "watched", "--json", "--runs", str(tmp_path / "runs")]) == 75
    said = [strict(line) for line in capsys.readouterr().out.splitlines()]
    assert [found["state"] for found in said] == ["RUNNING", "RUNNING", "STOPPED"]
    assert said[1]["elapsed_s"] > said[0]["elapsed_s"] + 3
    assert len(looks) == 8


def test_watch_shows_a_live_table_on_a_terminal(live: Book) -> None:
    ours, theirs = pty.openpty()
    arguments = ("watch", "living", "--runs", str(live.run.folder.parent))
    seen = b""
    with background(*arguments, stdout=theirs) as process:
        os.close(theirs)

        def has_all() -> bool:
            nonlocal seen
            seen += os.read(ours, 65536)
            return all(part in seen for part in (b"4/10", b"0003", b"best  0.95", b"rate=0.03"))

        wait_until(has_all, "the running trial and the best one")
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 130
    os.close(ours)
