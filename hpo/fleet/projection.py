"""What is shown of a search elsewhere, written behind it as it goes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from hpo.protocol import Effect, StoreAttempt, StoreReport
from hpo.run import Run
from hpo.tensorboard.writer import TensorBoardWriter, session_name
from hpo.trial import Report, TrialRecord, TrialState

log = logging.getLogger("tunefleet.chief")

# How long it looks away when there is nothing to write, in seconds.
_PAUSE_S = 0.5
# It rests so many times as long as a file took. What comes meanwhile for another file waits
# there and is written together: however many trials there are, it takes no more than a small
# part of a core. All files at once would be one big piece of work for the disk, and the
# ledger's next commit, which every call waits for, would have to wait for that.
_REST = 15


class Writer(Protocol):
    """Keeps something in line with the ledger, and finds there what it had written before."""

    def restore(self, records: Iterable[TrialRecord]) -> None:
        """Brings it in line with all attempts of the run, histories included."""

    def update(self, record: TrialRecord, reports: Sequence[Report]) -> None:
        """What is new of an attempt: steps, and its end if the record says so."""

    def close(self) -> None:
        """Nothing more will be written."""


# What is written, in words, and what makes its writer in the thread in which that writes.
Kind = tuple[str, Callable[[Run], Writer]]

TENSORBOARD: Kind = (
    "TensorBoard's files",
    lambda run: TensorBoardWriter(run.tensorboard, run.study),
)


class Projection:
    """Writes in a thread of its own; a failure there costs no result."""

    def __init__(self, kind: Kind, run: Run, records: Sequence[TrialRecord]) -> None:
        self._what, self._make = kind
        self._run = run
        self._records = records
        self._writer: Writer | None = None
        # What is yet to be written of each attempt: its latest record, and steps.
        self._news: dict[str, tuple[TrialRecord, list[Report]]] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._write, name=self._what)
        self._thread.start()

    def show(self, effects: Sequence[Effect]) -> None:
        """Shows what was just written to the ledger."""
        with self._lock:
            for effect in effects:
                if isinstance(effect, StoreReport):
                    self._note(effect.record, [effect.report])
                elif isinstance(effect, StoreAttempt):
                    self._note(effect.attempt.record, [])

    def close(self) -> None:
        """Writes what is left and closes the files."""
        self._closing.set()
        self._thread.join()

    def _note(self, record: TrialRecord, reports: list[Report]) -> None:
        if record.state is TrialState.WAITING:
            return
        name = session_name(record)
        earlier = self._news[name][1] if name in self._news else []
        self._news[name] = (record, earlier + reports)

    def _write(self) -> None:
        self._guarded(self._open)
        while True:
            closing = self._closing.is_set()
            began = time.monotonic()
            news = self._oldest()
            if news:
                self._guarded(self._update, *news)
                self._closing.wait(_REST * (time.monotonic() - began))
            elif closing:
                break
            else:
                self._closing.wait(_PAUSE_S)
        if self._writer:
            self._writer.close()

    def _oldest(self) -> tuple[TrialRecord, list[Report]] | None:
        """What is new of the attempt that has waited longest."""
        with self._lock:
            return self._news.pop(next(iter(self._news))) if self._news else None

    def _open(self) -> None:
        writer = self._make(self._run)
        # Also where this fails: what is new of a trial may be written all the same.
        self._writer = writer
        writer.restore(self._records)
        self._records = ()

    def _update(self, record: TrialRecord, reports: Sequence[Report]) -> None:
        if self._writer:
            self._writer.update(record, reports)

    def _guarded(self, work: Callable[..., None], *args: object) -> None:
        try:
            work(*args)
        except Exception:
            # What is missing is written by a later event of the trial, or by the next chief.
            log.exception("%s fall behind; the ledger has everything", self._what)
