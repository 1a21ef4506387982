"""How far a run is, brought up to date at the price of what changed, not of what there is."""

from __future__ import annotations

import collections
import time
from collections.abc import Iterator

from hpo.run import Run
from hpo.status import best_of
from hpo.trial import Failure, Report, TrialRecord, TrialState


class Tally:
    """The run's points by state, its running attempts and its best trial, when last read."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.best: TrialRecord | None = None
        self._reader = run.reader()
        self._fence = 0
        self._running: dict[int, TrialRecord] = {}
        self._waiting: list[str] = []
        self._ended: dict[str, TrialState] = {}
        self._ended_counts: collections.Counter[TrialState] = collections.Counter()
        self._seconds = 0.0
        self._timed = 0

    def read(self) -> Iterator[TrialRecord]:
        """The attempts that ended since the last time; each is counted when it is given."""
        ended = []
        for attempt in self._reader.granted(self._fence, self._running):
            self._fence = max(self._fence, attempt.fence)
            if attempt.record.state.ended:
                self._running.pop(attempt.fence, None)
                ended.append(attempt.record)
            else:
                self._running[attempt.fence] = attempt.record
        self._waiting = self._reader.waiting()
        # An attempt that was lost has no place in the order of the ends.
        for record in sorted(ended, key=lambda r: (r.ended_seq is None, r.ended_seq or 0)):
            self._count(record)
            yield record

    def close(self) -> None:
        """Ends reading."""
        self._reader.close()

    @property
    def running(self) -> list[TrialRecord]:
        """The attempts that run, by when they were handed out."""
        return list(self._running.values())

    @property
    def counts(self) -> collections.Counter[TrialState]:
        """How many points there are in each state, by their last attempt."""
        counts = self._ended_counts.copy()
        for trial_id in {record.trial_id for record in self.running}.union(self._waiting):
            if trial_id in self._ended:
                # It had ended, and is tried once more.
                counts[self._ended[trial_id]] -= 1
        counts[TrialState.RUNNING] = len(self._running)
        counts[TrialState.WAITING] = len(self._waiting)
        return counts

    @property
    def ended(self) -> int:
        """How many points have ended."""
        return sum(count for state, count in self.counts.items() if state.ended)

    def last_report(self, record: TrialRecord) -> Report | None:
        """The latest step of a running attempt."""
        return self._reader.last_report(record.trial_id, record.attempt)

    def seconds_left(self) -> float | None:
        """An estimate from the mean trial so far; None without one, or where nothing runs."""
        if not self._timed or not self._running:
            return None
        mean, now = self._seconds / self._timed, time.time()
        begun = [max(0.0, mean - (now - (r.started_at or now))) for r in self.running]
        to_begin = max(0, self.run.wanted - self.ended - len(begun))
        return (sum(begun) + mean * to_begin) / len(begun)

    def _count(self, record: TrialRecord) -> None:
        if record.failure is Failure.PREEMPTED and record.ended_seq is None:
            return
        if record.trial_id in self._ended:
            self._ended_counts[self._ended[record.trial_id]] -= 1
        self._ended[record.trial_id] = record.state
        self._ended_counts[record.state] += 1
        self.best = best_of(self.run, [r for r in (self.best, record) if r])
        if record.started_at and record.ended_at:
            self._seconds += record.ended_at - record.started_at
            self._timed += 1
