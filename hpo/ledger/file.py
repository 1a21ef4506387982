"""The file of a ledger: its tables, how it is opened, and what its errors mean to a person."""

from __future__ import annotations

import contextlib
import os
import pathlib
import sqlite3
from collections.abc import Iterator

from hpo.errors import LedgerError

SCHEMA = 3
FILE = "ledger.db"
LOCK = "ledger.lock"
# The keys of facts that change while a run goes on: why it ended early, what it has spent.
EARLY_END = "early_end"
SPENT = "spent"

TABLES = """
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

ATTEMPT = [
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


def connect(path: pathlib.Path, read_only: bool = False) -> sqlite3.Connection:
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


def upgrade(db: sqlite3.Connection) -> None:
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
def failing_well(path: pathlib.Path) -> Iterator[None]:
    """Errors of the database as a LedgerError that says what a person can do."""
    try:
        yield
    except (sqlite3.Error, UnicodeError, OverflowError) as error:
        text = str(error)
        advice = _ADVICE.get(text, "see it with --debug")
        raise LedgerError(f"the ledger {path}: {text}: {advice}") from error
