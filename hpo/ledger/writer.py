"""The one writer of a ledger: a thread that gathers transactions while one is under way."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import math
import pathlib
import sqlite3
import threading
from collections.abc import Iterable
from typing import Any

from hpo import file_system
from hpo.errors import LedgerError
from hpo.ledger.file import EARLY_END, FILE, LOCK, SCHEMA, TABLES, connect, failing_well, upgrade
from hpo.ledger.reader import LedgerReader
from hpo.ledger.statements import Statement, meta_statements, statements_of
from hpo.lock import Lock
from hpo.protocol import Effect

# How often a chief that writes notes when it was last there.
_SEEN_S = 1.0
# A reader holds the lock for a moment, which may last where it gets little processor time.
_PATIENCE_S = 5.0


def create(folder: pathlib.Path, meta: dict[str, Any]) -> None:
    """Makes the ledger of a new run in ``folder`` with what was asked as ``meta``.

    Raises PlaceError where it would not be safe there.
    """
    file_system.check(folder)
    with failing_well(folder / FILE), contextlib.closing(connect(folder / FILE)) as db:
        db.executescript(f"BEGIN; {TABLES} PRAGMA user_version = {SCHEMA}; COMMIT;")
        for statement in meta_statements(meta):
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
        self._lock.acquire(_PATIENCE_S)
        self._queue: collections.deque[tuple[list[Statement], concurrent.futures.Future[None]]]
        self._queue = collections.deque()
        self._wake = threading.Condition()
        self._closing = False
        self._session: int | None = None
        self._seen_at = -math.inf
        self._failure: LedgerError | None = None
        try:
            LedgerReader(folder).close()
            with failing_well(self._path):
                self._db = connect(self._path)
                upgrade(self._db)
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
        statements = [s for effect in effects for s in statements_of(effect, now)]
        # Once a second will do: each row that is touched is a page more to make durable.
        if statements and self._session is not None and abs(now - self._seen_at) >= _SEEN_S:
            self._seen_at = now
            seen = "UPDATE sessions SET seen_at = ? WHERE session = ?"
            statements.append((seen, (now, self._session)))
        return self.submit(statements)

    def set_meta(self, meta: dict[str, Any]) -> None:
        """Writes facts about the run, each under its key, and waits until they are durable."""
        self.submit(list(meta_statements(meta))).result()

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
            with failing_well(self._path):
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
