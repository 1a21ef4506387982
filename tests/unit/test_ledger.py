"""The ledger: what goes in comes out, and outlives a kill."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import pathlib
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo import ledger
from hpo.errors import RunError
from hpo.ledger import LedgerWriter
from hpo.lock import Lock
from hpo.protocol import Attempt, StoreAttempt, StoreReport, StoreWorker, WorkerInfo, WorkerRow
from hpo.trial import Failure, Report, TrialRecord, TrialState
from tests.support.cli_runs import PATIENCE_S
from tests.support.ledger_fixtures import META, ROOT, a_record, reading, stored, writing

KILLS = 24
NUMBERS = itertools.count()
# A chief in small: goes on with what the ledger holds, a whole trial in each transaction, and
# acknowledges each in one line. After `sys.argv[2]` trials it waits for the end of its input.
CHIEF = """
import dataclasses, itertools, pathlib, sys
from hpo.ledger import LedgerReader, LedgerWriter
from hpo.protocol import Attempt, StoreAttempt, StoreReport
from hpo.trial import Report, TrialRecord, TrialState
folder, most = pathlib.Path(sys.argv[1]), int(sys.argv[2])
writer = LedgerWriter(folder)
reader = LedgerReader(folder)
first = sum(1 for _ in reader.attempts())
for n in itertools.count(first):
    if n == most:
        sys.stdin.read()
    record = TrialRecord(f"{n:04d}", 1, TrialState.RUNNING, {"n": n}, "e", "s", "i", 0, "d",
                         asked_seq=n)
    ended = dataclasses.replace(record, state=TrialState.COMPLETED, value=0.5, ended_seq=n)
    effects = [StoreAttempt(Attempt(record, n + 1))]
    effects += [StoreReport(record, Report(step, {"loss": n / step})) for step in (1, 2)]
    effects += [StoreAttempt(Attempt(ended, n + 1))]
    writer.commit(effects, 0.0).result()
    print(n, flush=True)
"""
_TEXT = st.text(max_size=8)
_TIME = st.none() | st.floats(0, 4e9)
_NUMBER = st.integers(0, 2**31 - 1)
_VALUE = st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | _TEXT
_METRICS = st.dictionaries(_TEXT, st.floats(), max_size=3)
_HISTORY = st.dictionaries(st.integers(1, 9), _METRICS, max_size=3).map(
    lambda steps: tuple(Report(step, steps[step]) for step in sorted(steps))
)
_FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "trial_id": _TEXT,
    "attempt": st.integers(1, 9),
    "state": st.sampled_from(TrialState),
    "params": st.dictionaries(_TEXT, _VALUE, max_size=4),
    "engine": _TEXT,
    "sampler": _TEXT,
    "sampler_impl": _TEXT,
    "seed": _NUMBER,
    "study_digest": _TEXT,
    "tag": st.dictionaries(_TEXT, st.none() | _VALUE | st.lists(_VALUE, max_size=2), max_size=3),
    "epochs": st.none() | _NUMBER,
    "resume_from": st.none() | st.just("0007"),
    "failure": st.none() | st.sampled_from(Failure),
    # SQLite has no minus zero.
    "value": st.none() | st.floats(allow_nan=False).map(lambda x: x + 0.0),
    "best_step": st.none() | _NUMBER,
    "history": _HISTORY,
    "worker": st.none() | _TEXT,
    "device": st.none() | _TEXT,
    "queued_at": _TIME,
    "started_at": _TIME,
    "ended_at": _TIME,
    "error": st.none() | st.text(max_size=40),
    "asked_seq": _NUMBER,
    "ended_seq": st.none() | _NUMBER,
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LedgerWriter]:
    """A ledger that examples fill side by side."""
    place = tmp_path_factory.mktemp("shared")
    ledger.create(place, META)
    with writing(place) as writer:
        yield writer


@settings(max_examples=60, deadline=None)
@given(
    record=st.builds(TrialRecord, **_FIELDS), fence=_NUMBER, lost=st.integers(0, 9), data=st.data()
)
def test_every_field_survives(
    shared: LedgerWriter, record: TrialRecord, fence: int, lost: int, data: st.DataObject
) -> None:
    assert set(_FIELDS) == {field.name for field in dataclasses.fields(TrialRecord)}
    record = dataclasses.replace(record, trial_id=f"{record.trial_id}-{next(NUMBERS)}")
    reports = data.draw(st.permutations(record.history))
    effects = [StoreAttempt(Attempt(record, fence, lost))]
    shared.commit([*effects, *(StoreReport(record, r) for r in reports)], 0.0).result()
    with reading(shared._path.parent) as reader:
        found = [a for a in reader.attempts() if a.record.trial_id == record.trial_id]
    # By their text, in which NaN is NaN and True is not 1.
    assert repr(found) == repr([Attempt(record, fence, lost)])


def test_attempts_come_in_the_order_of_their_asks(folder: pathlib.Path) -> None:
    keys = [(1, "0003", 1), (2, "0001", 1), (2, "0001", 2), (3, "0002", 1)]
    with writing(folder) as writer:
        for asked, trial, attempt in reversed(keys):
            stored_one = stored(asked, trial_id=trial, attempt=attempt)
            writer.commit([stored_one], 0.0).result()
    with reading(folder) as reader:
        found = [(r.asked_seq, r.trial_id, r.attempt) for r in reader.records()]
    assert found == keys


def test_what_is_stored_again_replaces(folder: pathlib.Path) -> None:
    record = a_record()
    better = dataclasses.replace(record, value=0.25, best_step=2)
    with writing(folder) as writer:
        writer.commit([StoreAttempt(Attempt(record))], 0.0).result()
        for loss in (0.5, 0.25):
            writer.commit([StoreReport(better, Report(2, {"loss": loss}))], 0.0).result()
        writer.commit([StoreReport(better, Report(1, {"loss": 0.75}))], 0.0).result()
    with reading(folder) as reader:
        (found,) = reader.records()
        assert (found.value, found.best_step) == (0.25, 2)
        assert found.history == (Report(1, {"loss": 0.75}), Report(2, {"loss": 0.25}))
        assert reader.last_report(record.trial_id, 1) == found.history[-1]
        assert next(reader.attempts(history=False)).record.history == ()


def test_each_step_has_the_time_of_its_commit(folder: pathlib.Path) -> None:
    record = a_record()
    with writing(folder) as writer:
        writer.commit([StoreAttempt(Attempt(record))], 1.0).result()
        for step, at in ((1, 5.5), (2, 7.0), (2, 8.0)):
            writer.commit([StoreReport(record, Report(step, {"loss": 0.0}))], at).result()
    with reading(folder) as reader:
        assert reader.report_times(record.trial_id, 1) == {1: 5.5, 2: 8.0}
        assert reader.report_times(record.trial_id, 2) == {}


def test_a_ledger_from_before_steps_had_times_is_read_and_goes_on(folder: pathlib.Path) -> None:
    record = a_record()
    with writing(folder) as writer:
        effects = [StoreAttempt(Attempt(record)), StoreReport(record, Report(1, {"loss": 0.0}))]
        writer.commit(effects, 1.0).result()
    with contextlib.closing(sqlite3.connect(folder / ledger.FILE)) as db:
        db.executescript("ALTER TABLE reports DROP COLUMN at; PRAGMA user_version = 2")
    with reading(folder) as reader:
        assert reader.records()[0].history == (Report(1, {"loss": 0.0}),)
        assert reader.report_times(record.trial_id, 1) == {}
    with writing(folder) as writer:
        writer.commit([StoreReport(record, Report(2, {"loss": 0.0}))], 3.0).result()
    with reading(folder) as reader:
        assert reader.report_times(record.trial_id, 1) == {2: 3.0}


def test_what_was_granted_since_is_found_by_its_fence(folder: pathlib.Path) -> None:
    attempts = [Attempt(a_record(n), fence) for n, fence in enumerate([0, 5, 2, 9, 0])]
    with writing(folder) as writer:
        writer.commit(map(StoreAttempt, attempts), 0.0).result()
    with reading(folder) as reader:
        assert [a.fence for a in reader.granted(after=2)] == [5, 9]
        assert [a.fence for a in reader.granted(after=5, among=[2])] == [2, 9]
        assert sorted(reader.waiting()) == ["0000", "0004"]


def test_workers_and_meta(folder: pathlib.Path) -> None:
    rows = [
        WorkerRow(WorkerInfo("w0", "a", "höst", 12, "gpu:0"), 1.0, 3.0),
        WorkerRow(WorkerInfo("w0", "b", "höst", 13, "gpu:0"), 3.5),
    ]
    came = dataclasses.replace(rows[0], left_at=None)
    with writing(folder) as writer:
        writer.commit(map(StoreWorker, [came, rows[1], rows[0]]), 0.0).result()
        writer.set_meta({"wanted": 12, "new": [1, None]})
    with reading(folder) as reader:
        assert reader.workers() == rows
        assert reader.meta() == {**META, "wanted": 12, "new": [1, None]}


def test_a_session_that_was_killed_ends_where_it_was_last_seen(folder: pathlib.Path) -> None:
    with writing(folder) as writer:
        writer.begin_session("host", 1, "host:1", now=10.0)
        writer.commit([stored()], now=25.0).result()
    with writing(folder) as writer:
        writer.begin_session("host", 2, "host:2", now=90.0)
        writer.commit([], now=95.0).result()
        writer.end_session(now=99.0)
    with reading(folder) as reader:
        first, second = reader.sessions()
    assert (first["started_at"], first["seen_at"], first["ended_at"]) == (10.0, 25.0, 25.0)
    assert (second["address"], second["ended_at"]) == ("host:2", 99.0)


def test_an_empty_commit_is_done_once_what_came_before_is_durable(folder: pathlib.Path) -> None:
    with writing(folder) as writer:
        before = [writer.commit([stored(n)], 0.0) for n in range(50)]
        writer.commit([], 0.0).result()
        assert all(future.done() for future in before)


def test_what_nobody_waits_for_any_more_is_written_all_the_same(folder: pathlib.Path) -> None:
    with writing(folder) as writer:
        for number in range(20):
            # As when a worker is killed in the middle of its call.
            assert not writer.commit([stored(number)], 0.0).cancel()
        writer.commit([], 0.0).result(timeout=PATIENCE_S)
    with reading(folder) as reader:
        assert len(list(reader.attempts())) == 20


def test_closing_writes_what_is_queued(folder: pathlib.Path) -> None:
    with writing(folder) as writer:
        queued = [writer.commit([stored(n)], 0.0) for n in range(50)]
    assert all(future.done() and not future.exception() for future in queued)
    with reading(folder) as reader:
        assert len(reader.records()) == 50


class Chief:
    """A process that writes to the ledger in ``folder`` until it is killed."""

    def __init__(self, folder: pathlib.Path, most: int = -1) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", CHIEF, str(folder), str(most)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Chief:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def acknowledged(self) -> int:
        """The next trial that it acknowledges; fails if there is none."""
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            assert self._process.stderr
            raise AssertionError(self._process.stderr.read())
        return int(line)

    def kill(self) -> list[int]:
        """Ends it at once; what it had acknowledged and nobody had read."""
        self._process.send_signal(signal.SIGKILL)
        out, _ = self._process.communicate()
        return [int(line) for line in out.splitlines(keepends=True) if line.endswith("\n")]


def test_nothing_acknowledged_is_lost_however_often_the_writer_is_killed(
    folder: pathlib.Path,
) -> None:
    rng = random.Random(5)
    written = 0
    for _ in range(KILLS):
        with Chief(folder) as chief:
            last = chief.acknowledged()
            assert last == written, "it goes on where the one before was killed"
            # Killed in the middle of some write or other.
            for _ in range(rng.randrange(8)):
                last = chief.acknowledged()
            last = (chief.kill() or [last])[-1]
        with reading(folder) as reader:
            records = reader.records()
        assert [record.params["n"] for record in records] == list(range(len(records)))
        assert len(records) > last
        for record in records:
            # A transaction is there whole or not at all.
            assert record.state is TrialState.COMPLETED
            assert [report.step for report in record.history] == [1, 2]
        written = len(records)


def test_a_second_writer_is_refused_while_the_first_lives(folder: pathlib.Path) -> None:
    with Chief(folder, most=1) as chief:
        chief.acknowledged()
        assert Lock.held(folder / ledger.LOCK)
        with pytest.raises(RunError, match=f"run {folder.name} is in use by another process"):
            LedgerWriter(folder)
    assert not Lock.held(folder / ledger.LOCK)
    with writing(folder) as writer:
        writer.commit([stored(7)], 0.0).result()


def test_a_reader_sees_what_another_process_writes(folder: pathlib.Path) -> None:
    with Chief(folder, most=5) as chief, reading(folder) as reader:
        for _ in range(5):
            last = chief.acknowledged()
            assert len(reader.records()) > last
        with reading(folder) as late:
            assert len(late.records()) == 5
    with reading(folder) as reader:
        assert len(reader.records()) == 5
