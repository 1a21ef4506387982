"""The one durable state of a run: an SQLite file with one writer and any number of readers.

Every transaction holds the whole outbox of one event, so what is on disk is always a state
that the coordinator was in. ``synchronous=FULL``: a commit that returned survives a lost
host, not just a killed process. Commits are gathered while one is under way, so their cost
does not grow with the number of workers.

Each event writes rows of its own and rewrites at most one, so it costs the same at the ten
thousandth trial as at the first.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import json
import math
import os
import pathlib
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from hpo import file_system
from hpo.errors import LedgerError, RunError
from hpo.lock import Lock
from hpo.protocol import (
    Attempt,
    Effect,
    StoreAttempt,
    StoreCrew,
    StoreEarlyEnd,
    StoreReport,
    StoreSpent,
    StoreWorker,
    WorkerInfo,
    WorkerRow,
)
from hpo.trial import Failure, Report, TrialRecord, TrialState

SCHEMA = 3
FILE = "ledger.db"
LOCK = "ledger.lock"
# The keys of facts that change while a run goes on: why it ended early, what it has spent.
EARLY_END = "early_end"
SPENT = "spent"

_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE attempts (
    trial_id TEXT NOT NULL, attempt INTEGER NOT NULL, state TEXT NOT NULL, failure TEXT,
    params TEXT NOT NULL, tag TEXT NOT NULL, epochs INTEGER, resume_from TEXT,
    seed INTEGER NOT NULL,
    engine TEXT NOT NULL, sampler TEXT NOT NULL, sampler_impl TEXT NOT NULL,
    study_digest TEXT NOT NULL, value REAL, best_step INTEGER, worker TEXT, device TEXT,
    queued_at REAL, started_at REAL, ended_at REAL, error TEXT,
    asked_seq INTEGER NOT NULL, ended_seq INTEGER, fence INTEGER NOT NULL, lost INTEGER NOT NULL,
    PRIMARY KEY (trial_id, attempt)
) WITHOUT ROWID;
CREATE INDEX attempts_by_fence ON attempts (fence);
CREATE TABLE reports (
    trial_id TEXT NOT NULL, attempt INTEGER NOT NULL, step INTEGER NOT NULL,
    metrics TEXT NOT NULL, at REAL, PRIMARY KEY (trial_id, attempt, step)
) WITHOUT ROWID;
CREATE TABLE workers (
    worker_id TEXT NOT NULL, incarnation TEXT NOT NULL, host TEXT NOT NULL, pid INTEGER NOT NULL,
    device TEXT NOT NULL, joined_at REAL NOT NULL, left_at REAL,
    PRIMARY KEY (worker_id, incarnation)
) WITHOUT ROWID;
CREATE TABLE sessions (
    session INTEGER PRIMARY KEY, host TEXT NOT NULL, pid INTEGER NOT NULL, address TEXT NOT NULL,
    started_at REAL NOT NULL, seen_at REAL NOT NULL, ended_at REAL
);
"""

_ATTEMPT = [
    "trial_id",
    "attempt",
    "state",
    "failure",
    "params",
    "tag",
    "epochs",
    "resume_from",
    "seed",
    "engine",
    "sampler",
    "sampler_impl",
    "study_digest",
    "value",
    "best_step",
    "worker",
    "device",
    "queued_at",
    "started_at",
    "ended_at",
    "error",
    "asked_seq",
    "ended_seq",
    "fence",
    "lost",
]

_DAMAGED = "the file is damaged: see 'A damaged ledger' in docs/operations.md"
_ADVICE = {
    "database or disk is full": "free some space there, then `launch.py resume`",
    "disk I/O error": "check the disk for space and errors, then `launch.py resume`",
    "attempt to write a readonly database": "make the folder writable",
    "unable to open database file": "make the folder readable and writable",
    "file is not a database": _DAMAGED,
    "database disk image is malformed": _DAMAGED,
}

# How often a chief that writes notes when it was last there.
_SEEN_S = 1.0

# What no state of an attempt changes: written once, with its row.
_FIXED = {"params", "tag", "epochs", "resume_from", "seed", "engine", "sampler", "sampler_impl"} | {
    "study_digest",
    "asked_seq",
    "queued_at",
    "lost",
}
_KEY = ("trial_id", "attempt")
_CHANGING = [name for name in _ATTEMPT if name not in _FIXED and name not in _KEY]
_PUT_ATTEMPT = (
    f"INSERT INTO attempts ({', '.join(_ATTEMPT)}) VALUES ({', '.join('?' * len(_ATTEMPT))}) "
    "ON CONFLICT DO UPDATE SET " + ", ".join(f"{name} = excluded.{name}" for name in _CHANGING)
)

Statement = tuple[str, Sequence[Any]]


def create(folder: pathlib.Path, meta: dict[str, Any]) -> None:
    """Makes the ledger of a new run in ``folder`` with what was asked as ``meta``.

    Raises PlaceError where it would not be safe there.
    """
    file_system.check(folder)
    with _failing_well(folder / FILE), contextlib.closing(_connect(folder / FILE)) as db:
        db.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {SCHEMA}; COMMIT;")
        for statement in _meta_statements(meta):
            db.execute(*statement)
        db.commit()


class LedgerWriter:
    """The one writer. Transactions are written by a thread of its own, in order.

    After one that failed it writes no more: a new writer goes on from what is there.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        # It may have been made elsewhere and brought here.
        file_system.check(folder)
        self._path = folder / FILE
        self._lock = Lock(folder / LOCK)
        self._lock.acquire()
        self._queue: collections.deque[tuple[list[Statement], concurrent.futures.Future[None]]]
        self._queue = collections.deque()
        self._wake = threading.Condition()
        self._closing = False
        self._session: int | None = None
        self._seen_at = -math.inf
        self._failure: LedgerError | None = None
        try:
            LedgerReader(folder).close()
            with _failing_well(self._path):
                self._db = _connect(self._path)
                _upgrade(self._db)
        except BaseException:
            self._lock.release()
            raise
        self._thread = threading.Thread(target=self._write, name="ledger", daemon=True)
        self._thread.start()

    def begin_session(self, host: str, pid: int, address: str, now: float) -> None:
        """A chief starts to serve; the session before, if it was killed, ends where it was seen."""
        close_old = "UPDATE sessions SET ended_at = seen_at WHERE ended_at IS NULL"
        start = "INSERT INTO sessions (host, pid, address, started_at, seen_at) VALUES (?,?,?,?,?)"
        # What ended it early once may be otherwise now: a higher limit, another machine.
        self.set_meta({EARLY_END: None})
        self.submit([(close_old, ()), (start, (host, pid, address, now, now))]).result()
        with contextlib.closing(LedgerReader(self._path.parent)) as reader:
            self._session = reader.session_number()

    def end_session(self, now: float) -> None:
        """The chief stops serving."""
        self.submit([("UPDATE sessions SET ended_at = ? WHERE ended_at IS NULL", (now,))]).result()

    def commit(self, effects: Iterable[Effect], now: float) -> concurrent.futures.Future[None]:
        """Writes the effects of one event as one transaction; done once they are durable.

        Without anything to write it is done once all that was submitted before is durable.
        """
        statements = [s for effect in effects for s in _statements(effect, now)]
        # Once a second will do: each row that is touched is a page more to make durable.
        if statements and self._session is not None and abs(now - self._seen_at) >= _SEEN_S:
            self._seen_at = now
            seen = "UPDATE sessions SET seen_at = ? WHERE session = ?"
            statements.append((seen, (now, self._session)))
        return self.submit(statements)

    def set_meta(self, meta: dict[str, Any]) -> None:
        """Writes facts about the run, each under its key, and waits until they are durable."""
        self.submit(list(_meta_statements(meta))).result()

    def submit(self, statements: list[Statement]) -> concurrent.futures.Future[None]:
        """Queues a transaction; its future fails with LedgerError if it could not be written."""
        future: concurrent.futures.Future[None] = concurrent.futures.Future()
        # From here on it cannot be cancelled: what a worker set going before it vanished is
        # written all the same, and so is what others wait for in the same transaction.
        future.set_running_or_notify_cancel()
        with self._wake:
            self._queue.append((statements, future))
            self._wake.notify()
        return future

    def close(self) -> None:
        """Writes what is queued, then gives up the lock."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()
        self._db.close()
        self._lock.release()

    def _write(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._queue or self._closing)
                if not self._queue:
                    return
                batch = list(self._queue)
                self._queue.clear()
            self._write_batch(batch)

    def _write_batch(
        self, batch: list[tuple[list[Statement], concurrent.futures.Future[None]]]
    ) -> None:
        if self._failure is None:
            self._failure = self._transact([s for statements, _ in batch for s in statements])
        for _, future in batch:
            # What comes after a failure builds on what is missing, so it is not written either.
            if self._failure:
                future.set_exception(self._failure)
            else:
                future.set_result(None)

    def _transact(self, statements: list[Statement]) -> LedgerError | None:
        """Writes all of ``statements`` or none; the error that kept it from doing so."""
        try:
            with _failing_well(self._path):
                if statements:
                    self._db.execute("BEGIN IMMEDIATE")
                    for statement in statements:
                        self._db.execute(*statement)
                    self._db.execute("COMMIT")
        except LedgerError as error:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            return error
        return None


class LedgerReader:
    """Reads a ledger, also while another process writes it. Raises LedgerError or RunError."""

    def __init__(self, folder: pathlib.Path) -> None:
        path = folder / FILE
        if not path.is_file():
            raise RunError(f"no run in {folder}: it has no {FILE}")
        with _failing_well(path):
            self._db = _connect(path, read_only=True)
            try:
                self._check_version(path)
            except BaseException:
                self._db.close()
                raise

    def close(self) -> None:
        """Ends reading."""
        self._db.close()

    def meta(self) -> dict[str, Any]:
        """What is known of the run as a whole, by key."""
        rows = self._rows("SELECT key, value FROM meta")
        return {key: json.loads(value) for key, value in rows}

    def attempts(self, history: bool = True) -> Iterator[Attempt]:
        """Every attempt, by trial and number; without ``history`` the reports are not read."""
        for fields in self._attempts("ORDER BY asked_seq, attempt"):
            key = (fields["trial_id"], fields["attempt"])
            yield _attempt(fields, self.history(*key) if history else ())

    def granted(self, after: int, among: Iterable[int] = ()) -> list[Attempt]:
        """The attempts handed out after fencing number ``after``, and those under ``among``.

        In the order of the grants, without reports; found without a look at the others.
        """
        numbers = list(among)
        marks = ", ".join("?" * len(numbers))
        rest = f"WHERE fence > ? OR fence IN ({marks}) ORDER BY fence"
        return [_attempt(fields, ()) for fields in self._attempts(rest, (after, *numbers))]

    def waiting(self) -> list[str]:
        """The trials with an attempt that was not handed out yet."""
        return [row[0] for row in self._rows("SELECT trial_id FROM attempts WHERE fence = 0")]

    def records(self) -> list[TrialRecord]:
        """The records of every attempt, with their histories."""
        return [attempt.record for attempt in self.attempts()]

    def history(self, trial_id: str, attempt: int) -> tuple[Report, ...]:
        """The reports of one attempt by step."""
        query = "SELECT step, metrics FROM reports WHERE trial_id = ? AND attempt = ? ORDER BY step"
        rows = self._rows(query, (trial_id, attempt))
        return tuple(Report(step, _metrics(json.loads(metrics))) for step, metrics in rows)

    def report_times(self, trial_id: str, attempt: int) -> dict[int, float]:
        """When each step of one attempt came, by step; empty where that was not noted yet."""
        if self._version < 3:
            return {}
        query = "SELECT step, at FROM reports WHERE trial_id = ? AND attempt = ? AND at NOT NULL"
        return dict(self._rows(query, (trial_id, attempt)))

    def last_report(self, trial_id: str, attempt: int) -> Report | None:
        """The latest step of one attempt."""
        query = "SELECT step, metrics FROM reports WHERE trial_id = ? AND attempt = ?"
        rows = self._rows(query + " ORDER BY step DESC LIMIT 1", (trial_id, attempt))
        return Report(rows[0][0], _metrics(json.loads(rows[0][1]))) if rows else None

    def workers(self) -> list[WorkerRow]:
        """Every worker that ever joined."""
        query = "SELECT worker_id, incarnation, host, pid, device, joined_at, left_at FROM workers"
        rows = self._rows(query + " ORDER BY joined_at")
        return [WorkerRow(WorkerInfo(*row[:5]), row[5], row[6]) for row in rows]

    def sessions(self) -> list[dict[str, Any]]:
        """The times in which a chief served, the latest last."""
        names = ("session", "host", "pid", "address", "started_at", "seen_at", "ended_at")
        rows = self._rows(f"SELECT {', '.join(names)} FROM sessions ORDER BY session")
        return [dict(zip(names, row, strict=True)) for row in rows]

    def session_number(self) -> int | None:
        """The latest session."""
        number: int | None = self._rows("SELECT max(session) FROM sessions")[0][0]
        return number

    def _attempts(self, rest: str, values: Sequence[Any] = ()) -> Iterator[dict[str, Any]]:
        """The rows of attempts that the ``rest`` of a query selects, by column."""
        rows = self._rows(f"SELECT {', '.join(self._columns)} FROM attempts {rest}", values)
        return (dict(zip(_ATTEMPT, row, strict=True)) for row in rows)

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with _failing_well(pathlib.Path(FILE)):
            return self._db.execute(query, values).fetchall()

    def _check_version(self, path: pathlib.Path) -> None:
        version = self._version = self._db.execute("PRAGMA user_version").fetchone()[0]
        self._columns = list(_ATTEMPT)
        if version == 1:
            # Written before trials could go on from others.
            self._columns[self._columns.index("resume_from")] = "NULL"
        elif version not in (2, SCHEMA):
            raise LedgerError(
                f"{path} has format {version} and this program reads format {SCHEMA}: "
                "read it with the version that wrote it"
            )


def _connect(path: pathlib.Path, read_only: bool = False) -> sqlite3.Connection:
    if not read_only:
        db = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        return db
    mode = "ro"
    if not os.access(path.parent, os.W_OK) and not path.with_name(FILE + "-wal").exists():
        # Nobody can be writing there, and SQLite could not make its shared-memory file.
        mode = "ro&immutable=1"
    uri = f"file:{_quoted(path)}?mode={mode}"
    return sqlite3.connect(uri, uri=True, timeout=10, isolation_level=None, check_same_thread=False)


def _quoted(path: pathlib.Path) -> str:
    return str(path.resolve()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _upgrade(db: sqlite3.Connection) -> None:
    """Brings a ledger of an older format to this one."""
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version == SCHEMA:
        return
    db.execute("BEGIN IMMEDIATE")
    if version == 1:
        db.execute("ALTER TABLE attempts ADD COLUMN resume_from TEXT")
    db.execute("ALTER TABLE reports ADD COLUMN at REAL")
    db.execute(f"PRAGMA user_version = {SCHEMA}")
    db.execute("COMMIT")


@contextlib.contextmanager
def _failing_well(path: pathlib.Path) -> Iterator[None]:
    """Errors of the database as a LedgerError that says what a person can do."""
    try:
        yield
    except (sqlite3.Error, UnicodeError, OverflowError) as error:
        text = str(error)
        advice = _ADVICE.get(text, "see it with --debug")
        raise LedgerError(f"the ledger {path}: {text}: {advice}") from error


def _meta_statements(meta: dict[str, Any]) -> Iterator[Statement]:
    for key, value in meta.items():
        yield "INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(value))


def _statements(effect: Effect, now: float) -> Iterator[Statement]:
    if isinstance(effect, StoreAttempt):
        yield _PUT_ATTEMPT, _attempt_values(effect.attempt)
    elif isinstance(effect, StoreReport):
        record, report = effect.record, effect.report
        key = (record.trial_id, record.attempt)
        metrics = json.dumps(report.metrics)
        insert = "INSERT OR REPLACE INTO reports (trial_id, attempt, step, metrics, at)"
        yield f"{insert} VALUES (?,?,?,?,?)", (*key, report.step, metrics, now)
        update = "UPDATE attempts SET value = ?, best_step = ? WHERE trial_id = ? AND attempt = ?"
        yield update, (record.value, record.best_step, *key)
    elif isinstance(effect, StoreWorker):
        info, row = effect.row.info, effect.row
        values = (info.worker_id, info.incarnation, info.host, info.pid, info.device)
        insert = "INSERT OR REPLACE INTO workers VALUES (?,?,?,?,?,?,?)"
        yield insert, (*values, row.joined_at, row.left_at)
    elif isinstance(effect, StoreEarlyEnd):
        end = {"reason": effect.reason.value, "words": effect.words}
        yield from _meta_statements({EARLY_END: end})
    elif isinstance(effect, StoreSpent):
        yield from _meta_statements({SPENT: dataclasses.asdict(effect.spent)})
    elif isinstance(effect, StoreCrew):
        yield from _meta_statements(effect.crew.to_meta())


def _attempt_values(attempt: Attempt) -> tuple[Any, ...]:
    record = attempt.record
    fields = {name: getattr(record, name) for name in _ATTEMPT if name not in ("fence", "lost")}
    fields |= {"params": json.dumps(record.params), "tag": json.dumps(record.tag)}
    fields |= {"state": record.state.value, "fence": attempt.fence, "lost": attempt.lost}
    fields["failure"] = record.failure.value if record.failure else None
    return tuple(fields[name] for name in _ATTEMPT)


def _attempt(fields: dict[str, Any], history: tuple[Report, ...]) -> Attempt:
    fence, lost = fields.pop("fence"), fields.pop("lost")
    fields |= {"params": json.loads(fields["params"]), "tag": json.loads(fields["tag"])}
    fields |= {"state": TrialState(fields["state"]), "history": history}
    fields["failure"] = Failure(fields["failure"]) if fields["failure"] else None
    return Attempt(TrialRecord(**fields), fence, lost)


def _metrics(values: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items()}
