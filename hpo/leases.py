"""The live workers of a search and their leases."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from hpo.protocol import Clock, WorkerInfo, WorkerRow


class UnknownWorkerError(Exception):
    """A call from a worker that never joined or whose lease ran out: it should join again."""


class ReplacedWorkerError(Exception):
    """A call from a worker whose id a newer process has taken over: it should leave."""


@dataclasses.dataclass
class LiveWorker:
    """A worker within its lease. ``fence`` is that of the attempt it holds, 0 for none."""

    row: WorkerRow
    deadline: float
    seen_at: float
    fence: int = 0

    def gone(self) -> WorkerRow:
        """The row of a worker that left: it was last heard of when it was last seen."""
        return dataclasses.replace(self.row, left_at=self.seen_at)


class Leases:
    """Every worker whose lease has not run out, by its id."""

    def __init__(self, clock: Clock, lease_s: float) -> None:
        self._clock = clock
        self._lease_s = lease_s
        self._live: dict[str, LiveWorker] = {}
        # Who waits for a trial. Kept, and not counted anew: it is asked for at every event.
        self._hungry: set[str] = set()
        self._looked = clock.monotonic()

    def __iter__(self) -> Iterator[LiveWorker]:
        return iter(list(self._live.values()))

    def __len__(self) -> int:
        """How many workers live."""
        return len(self._live)

    @property
    def hungry(self) -> int:
        """How many workers wait for a trial."""
        return len(self._hungry)

    def wants(self, worker: LiveWorker, hungry: bool) -> None:
        """Notes whether a worker waits for a trial."""
        change = self._hungry.add if hungry else self._hungry.discard
        change(worker.row.info.worker_id)

    def get(self, worker_id: str | None) -> LiveWorker | None:
        """The live worker of this id."""
        return self._live.get(worker_id) if worker_id else None

    def heard(self, worker_id: str, incarnation: str) -> LiveWorker:
        """The worker that sent something, its lease renewed.

        Raises UnknownWorkerError or ReplacedWorkerError where it has none.
        """
        worker = self._live.get(worker_id)
        if worker is None:
            raise UnknownWorkerError(worker_id)
        if worker.row.info.incarnation != incarnation:
            raise ReplacedWorkerError(worker_id)
        self.renew(worker)
        return worker

    def renew(self, worker: LiveWorker) -> None:
        """Starts the worker's lease anew."""
        worker.deadline = self._clock.monotonic() + self._lease_s
        worker.seen_at = self._clock.wall()

    def add(self, info: WorkerInfo) -> LiveWorker:
        """A new worker under its lease."""
        return self.restore(WorkerRow(info, joined_at=self._clock.wall()))

    def restore(self, row: WorkerRow) -> LiveWorker:
        """A worker that the ledger knows as live gets a whole lease to be heard of again."""
        worker = LiveWorker(row, deadline=0.0, seen_at=0.0)
        self.renew(worker)
        self.wants(worker, False)
        self._live[row.info.worker_id] = worker
        return worker

    def remove(self, worker: LiveWorker) -> None:
        """The worker's lease is over."""
        del self._live[worker.row.info.worker_id]
        self.wants(worker, False)

    def expired(self) -> list[LiveWorker]:
        """Those whose lease has run out. To be called several times within a lease."""
        now = self._clock.monotonic()
        unseen = now - self._looked
        self._looked = now
        if unseen > self._lease_s / 3:
            # We stood still ourselves: nobody could have renewed, so nobody is late. Who was
            # heard of since has a whole lease from then on, and no more.
            for worker in self._live.values():
                worker.deadline = min(worker.deadline + unseen, now + self._lease_s)
        return [worker for worker in self._live.values() if worker.deadline < now]
