"""One trial and its attempts: what the coordinator keeps of it, and finds again in a ledger."""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Iterable

from hpo.protocol import Attempt, Rules, StoreAttempt
from hpo.trial import Failure, Metrics, Report, TrialRecord, TrialState


@dataclasses.dataclass
class OpenTrial:
    """A trial that has not ended: its current attempt and what was reported of it.

    ``begun`` is when that was handed out, on the monotonic clock. ``failed`` counts the
    earlier attempts by how they failed; ``earlier`` is what the one before had reported;
    ``gained`` is the furthest step that one of them went on from, as far as this chief knows.
    """

    attempt: Attempt
    history: dict[int, Metrics] = dataclasses.field(default_factory=dict)
    begun: float = 0.0
    failed: collections.Counter[Failure] = dataclasses.field(default_factory=collections.Counter)
    earlier: dict[int, Metrics] = dataclasses.field(default_factory=dict)
    gained: int = 0

    @property
    def record(self) -> TrialRecord:
        """The current attempt's record."""
        return self.attempt.record

    @property
    def alone(self) -> bool:
        """Whether nothing else may run beside it, since it ran out of memory once."""
        return self.failed[Failure.OOM] > 0

    def change(self, **fields: object) -> None:
        """Replaces ``fields`` of the record."""
        record = dataclasses.replace(self.record, **fields)  # type: ignore[arg-type]
        self.attempt = dataclasses.replace(self.attempt, record=record)

    def note(self, report: Report, rules: Rules) -> None:
        """Takes a step's metrics; the record's value is that of the best step."""
        replaced = report.step in self.history
        self.history[report.step] = report.metrics
        if replaced:
            # The step that is replaced may have been the best one.
            self.change(value=None, best_step=None)
        for step in self.history if replaced else (report.step,):
            value = self.history[step].get(rules.objective)
            if value is None or not math.isfinite(value):
                continue
            if rules.direction.better(value, self.record.value):
                self.change(value=value, best_step=step)

    def gain(self, step: int) -> bool:
        """The attempt goes on from ``step``; whether lost attempts count no more for that."""
        further, self.gained = step > self.gained, max(step, self.gained)
        if not further or not self.attempt.lost:
            return False
        self.attempt = dataclasses.replace(self.attempt, lost=0)
        return True

    def again(self, lost: int, now: float) -> OpenTrial:
        """The trial with its next attempt, which waits since ``now``."""
        failed = self.failed.copy()
        if self.record.failure:
            failed[self.record.failure] += 1
        attempt = Attempt(_next(self.record, now), lost=lost)
        return OpenTrial(attempt, failed=failed, earlier=self.history, gained=self.gained)


class Past:
    """What the attempts in a ledger, in the order of their asks, say of each trial."""

    def __init__(self, attempts: Iterable[Attempt]) -> None:
        self.fence = 0
        self.seq = 0
        # The attempts whose ends their workers told: such a call may come once more.
        self.told: dict[int, tuple[str, int]] = {}
        # All of them, in the order of their asks.
        self.records: list[TrialRecord] = []
        self._latest: dict[str, Attempt] = {}
        self._earlier: dict[str, dict[int, Metrics]] = {}
        self._failed: dict[str, collections.Counter[Failure]] = collections.defaultdict(
            collections.Counter
        )
        for attempt in attempts:
            self._take(attempt)

    def __len__(self) -> int:
        """How many trials there are."""
        return len(self._latest)

    def trials(self, now: float) -> list[OpenTrial]:
        """The trials with their last attempts, the ended ones in the order of their ends.

        So of equal values the same one is the best again. What was lost comes ahead of what
        was never tried. The time limit of a trial that runs starts anew at ``now``: the dates
        in the ledger may be of a clock that has jumped since.
        """
        ordered = sorted(
            self._latest.values(), key=lambda a: (a.record.ended_seq or 0, -a.record.attempt)
        )
        return [
            OpenTrial(
                attempt,
                _history(attempt.record),
                now,
                self._failed[attempt.record.trial_id],
                self._earlier.get(attempt.record.trial_id, {}),
            )
            for attempt in ordered
        ]

    def _take(self, attempt: Attempt) -> None:
        record = attempt.record
        self.records.append(record)
        before = self._latest.get(record.trial_id)
        if before:
            self._earlier[record.trial_id] = _history(before.record)
        self._latest[record.trial_id] = attempt
        if record.failure and record.state.ended:
            self._failed[record.trial_id][record.failure] += 1
        # An attempt that was lost is not one whose end its worker told.
        if record.state.ended and record.failure is not Failure.PREEMPTED:
            self.told[attempt.fence] = (record.trial_id, record.attempt)
        self.fence = max(self.fence, attempt.fence)
        self.seq = max(self.seq, record.asked_seq, record.ended_seq or 0)


def retried(attempts: Iterable[Attempt], now: float) -> list[StoreAttempt]:
    """Another attempt for each trial that ended as failed, for the next chief to find.

    ``attempts`` are all of a search, as the ledger gives them; nobody may lead it meanwhile.
    Of lost attempts the trial is allowed as many again. The sampler of the next chief takes
    the trial for one that never ended, until it ends again.
    """
    latest = {attempt.record.trial_id: attempt.record for attempt in attempts}
    failed = [record for record in latest.values() if record.state is TrialState.FAILED]
    return [StoreAttempt(Attempt(_next(record, now))) for record in failed]


def _next(record: TrialRecord, now: float) -> TrialRecord:
    """The attempt after ``record`` at the same point; it waits since ``now``."""
    return dataclasses.replace(
        record,
        attempt=record.attempt + 1,
        state=TrialState.WAITING,
        failure=None,
        error=None,
        value=None,
        best_step=None,
        history=(),
        worker=None,
        device=None,
        queued_at=now,
        started_at=None,
        ended_at=None,
        ended_seq=None,
    )


def _history(record: TrialRecord) -> dict[int, Metrics]:
    return {report.step: report.metrics for report in record.history}
