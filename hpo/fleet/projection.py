"""TensorBoard's files, written behind a search as it goes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from hpo.protocol import Effect, StoreAttempt, StoreReport
from hpo.run import Run
from hpo.tensorboard import TensorBoardWriter, session_name
from hpo.trial import Report, TrialRecord, TrialState

log = logging.getLogger("tunefleet.chief")

# From one writing to the next, in seconds and as a multiple of what the last one took: what
# comes meanwhile is written together, a file at a time, and however many trials there are it
# takes no more than a small part of a core.
_PAUSE_S = 0.5
_PAUSES = 15


class Projection:
    """Writes in a thread of its own; a failure there costs no result."""

    def __init__(self, run: Run, records: Sequence[TrialRecord]) -> None:
        self._run = run
        self._records = records
        self._writer: TensorBoardWriter | None = None
        # What is yet to be written of each attempt: its latest record, and steps.
        self._news: dict[str, tuple[TrialRecord, list[Report]]] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._write, name="tensorboard")
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
        pause_s = _PAUSE_S
        while True:
            closing = self._closing.wait(pause_s)
            began = time.monotonic()
            with self._lock:
                news, self._news = self._news, {}
            for record, reports in news.values():
                self._guarded(self._update, record, reports)
            if closing:
                break
            pause_s = max(_PAUSE_S, _PAUSES * (time.monotonic() - began))
        if self._writer:
            self._writer.close()

    def _open(self) -> None:
        self._writer = TensorBoardWriter(self._run.tensorboard, self._run.study)
        self._writer.restore(self._records)
        self._records = ()

    def _update(self, record: TrialRecord, reports: Sequence[Report]) -> None:
        if self._writer:
            self._writer.update(record, reports)

    def _guarded(self, work: Callable[..., None], *args: object) -> None:
        try:
            work(*args)
        except Exception:
            # The next event of the same trial writes its file whole again.
            log.exception("TensorBoard's files fall behind; the ledger has everything")
