"""What a search did and when, whether it ran or was replayed: all that statistics need of it."""

from __future__ import annotations

import bisect
import collections
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

from hpo.protocol import WorkerRow
from hpo.trial import Direction, Failure, Params, TrialRecord, TrialState

_SLICES = 60


@dataclasses.dataclass(frozen=True)
class End:
    """A trial's end: seconds since the search began, node-seconds spent by then, its value.

    ``value`` is None where it has none, as for one that failed.
    """

    trial_id: str
    at_s: float
    node_s: float
    state: str
    value: float | None
    params: Params


@dataclasses.dataclass(frozen=True)
class Trace:
    """One search. ``ends`` are in their order.

    ``present_s`` are the node-seconds that were paid for, ``busy_s`` those in which a trial
    ran, ``lost_s`` those of attempts that came to nothing; ``suggesting_s`` is how long the
    sampler thought (None: not measured).
    ``busy`` is the share of the nodes that ran trials in each of some equal slices of time.
    """

    ends: tuple[End, ...]
    makespan_s: float
    present_s: float
    busy_s: float
    lost_s: float
    suggesting_s: float | None
    attempts: int
    failures: dict[str, int]
    busy: tuple[float, ...]
    early_end: str = ""

    def best(self, direction: Direction) -> list[float]:
        """The best value after each end, NaN before there is one."""
        found: list[float] = []
        best: float | None = None
        for end in self.ends:
            counts = end.state == TrialState.COMPLETED and end.value is not None
            if counts and direction.better(end.value, best):  # type: ignore[arg-type]
                best = end.value
            found.append(math.nan if best is None else best)
        return found

    def to_json(self) -> dict[str, Any]:
        """The trace as JSON; :meth:`from_json` gives an equal one back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """A trace from what :meth:`to_json` gave."""
        ends = tuple(End(**end) for end in row["ends"])
        return cls(**{**row, "ends": ends, "busy": tuple(row["busy"])})


def trace_of(
    records: Sequence[TrialRecord],
    workers: Sequence[WorkerRow],
    began: float,
    suggesting_s: float | None = None,
    early_end: str = "",
) -> Trace:
    """The trace of a search whose attempts are ``records``; it began at ``began``."""
    done = [_cut(r, workers) for r in records if r.started_at is not None and r.ended_at]
    until = max((r.ended_at or began for r in done), default=began)
    last = sorted((r for r in done if r.ended_seq is not None), key=lambda r: r.ended_seq or 0)
    # A worker that is still there after the end costs nothing more of this search.
    spans = [(row.joined_at, min(row.left_at or until, until)) for row in workers]
    spent = _Spent([span for span in spans if span[1] > span[0]])
    ends = tuple(
        End(
            record.trial_id,
            (record.ended_at or began) - began,
            spent.until(record.ended_at or began),
            record.state.value,
            record.value,
            record.params,
        )
        for record in last
    )
    failures = collections.Counter(r.failure.value for r in records if r.failure)
    return Trace(
        ends=ends,
        makespan_s=until - began,
        present_s=spent.until(until),
        busy_s=sum(r.fit_s or 0.0 for r in done),
        lost_s=sum(r.fit_s or 0.0 for r in done if r.state is TrialState.FAILED),
        suggesting_s=suggesting_s,
        attempts=len(records),
        failures=dict(failures),
        busy=_busy(done, spent, began, until),
        early_end=early_end,
    )


def _cut(record: TrialRecord, workers: Sequence[WorkerRow]) -> TrialRecord:
    """An attempt that was lost ended with its worker, and not when that was found out."""
    if record.failure is not Failure.PREEMPTED:
        return record
    own = [row for row in workers if row.info.worker_id == record.worker]
    holders = [row for row in own if row.joined_at <= (record.started_at or 0.0)]
    left_at = max(holders, key=lambda row: row.joined_at).left_at if holders else None
    if left_at is None or record.ended_at is None:
        return record
    return dataclasses.replace(record, ended_at=min(record.ended_at, left_at))


class _Spent:
    """Node-seconds by time: the sum over the nodes of how long each has been there."""

    def __init__(self, spans: Sequence[tuple[float, float]]) -> None:
        changes = sorted([(start, 1) for start, _ in spans] + [(end, -1) for _, end in spans])
        self._times, self._sums, self._counts = [-math.inf], [0.0], [0]
        for at, change in changes:
            gone = at - self._times[-1] if self._counts[-1] else 0.0
            self._sums.append(self._sums[-1] + gone * self._counts[-1])
            self._times.append(at)
            self._counts.append(self._counts[-1] + change)

    def until(self, at: float) -> float:
        """What was spent until ``at``."""
        place = bisect.bisect_right(self._times, at) - 1
        gone = at - self._times[place] if self._counts[place] else 0.0
        return self._sums[place] + gone * self._counts[place]


def _busy(
    done: Sequence[TrialRecord], spent: _Spent, began: float, until: float
) -> tuple[float, ...]:
    if until <= began:
        return ()
    length = (until - began) / _SLICES
    # The same sum over the time that trials ran: what is not idle.
    running = _Spent([(r.started_at or 0.0, r.ended_at or 0.0) for r in done])
    found = []
    for number in range(_SLICES):
        ends = began + number * length, began + (number + 1) * length
        present = spent.until(ends[1]) - spent.until(ends[0])
        busy = running.until(ends[1]) - running.until(ends[0])
        found.append(min(busy / present, 1.0) if present > 0 else 0.0)
    return tuple(found)
