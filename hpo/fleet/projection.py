"""TensorBoard's files, written behind a search as it goes."""

from __future__ import annotations

import concurrent.futures
import logging
from collections.abc import Callable, Sequence

from hpo.protocol import Effect, StoreAttempt, StoreReport
from hpo.run import Run
from hpo.tensorboard import TensorBoardWriter
from hpo.trial import TrialRecord, TrialState

log = logging.getLogger("tunefleet.chief")


class Projection:
    """Writes in a thread of its own; a failure there costs no result."""

    def __init__(self, run: Run, records: Sequence[TrialRecord]) -> None:
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="tensorboard")
        self._writer: TensorBoardWriter | None = None
        self._submit(lambda: self._open(run, records))

    def show(self, effects: Sequence[Effect]) -> None:
        """Shows what was just written to the ledger."""
        shown = [e for e in effects if isinstance(e, StoreAttempt | StoreReport)]
        if shown:
            self._submit(lambda: self._show(shown))

    def close(self) -> None:
        """Writes what is queued and closes the files."""
        self._submit(lambda: self._writer.close() if self._writer else None)
        self._thread.shutdown()

    def _open(self, run: Run, records: Sequence[TrialRecord]) -> None:
        self._writer = TensorBoardWriter(run.tensorboard, run.study)
        self._writer.restore(records)

    def _show(self, effects: Sequence[Effect]) -> None:
        if self._writer is None:
            return
        for effect in effects:
            if isinstance(effect, StoreReport):
                self._writer.report(effect.record, effect.report)
            elif isinstance(effect, StoreAttempt):
                record = effect.attempt.record
                if record.state is TrialState.RUNNING:
                    self._writer.start(record)
                elif record.state.ended:
                    self._writer.end(record)

    def _submit(self, work: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                work()
            except Exception:
                # The next event of the same trial writes its file whole again.
                log.exception("TensorBoard's files fall behind; the ledger has everything")

        self._thread.submit(guarded)
