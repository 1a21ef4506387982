"""What is known of one trial: its state, why it failed, and its record."""

from __future__ import annotations

import dataclasses
import datetime
import enum
from typing import Any

Value = bool | int | float | str
Params = dict[str, Value]
Metrics = dict[str, float]


class TrialState(enum.StrEnum):
    """Where a trial, or one attempt at it, stands."""

    WAITING = "WAITING"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    PRUNED = "PRUNED"
    FAILED = "FAILED"

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen in this state."""
        return self in (TrialState.COMPLETED, TrialState.PRUNED, TrialState.FAILED)


class Failure(enum.StrEnum):
    """Why an attempt failed; each kind has a policy and a count of its own."""

    PREEMPTED = "PREEMPTED"
    OOM = "OOM"
    NAN = "NAN"
    TIMEOUT = "TIMEOUT"
    CODE = "CODE"


class Direction(enum.StrEnum):
    """Which way the objective is better."""

    MAX = "max"
    MIN = "min"

    def better(self, value: float, than: float | None) -> bool:
        """Whether ``value`` beats ``than``; anything beats None."""
        if than is None:
            return True
        return value > than if self is Direction.MAX else value < than


class Answer(enum.IntEnum):
    """What a trial hears after a step. Whoever only asks for truth goes on or stops."""

    STOP = 0
    GO_ON = 1
    # Save a checkpoint and leave; who cannot, goes on.
    SUSPEND = 2


@dataclasses.dataclass(frozen=True)
class Report:
    """The metrics of one step (an epoch, counted from 1) of an attempt."""

    step: int
    metrics: Metrics


@dataclasses.dataclass(frozen=True)
class TrialRecord:
    """One attempt at a trial, as the ledger keeps it.

    ``resume_from`` is another trial, from whose end this one goes on.
    ``value`` is the objective at the attempt's best step, None until there is one and for
    a failed attempt. Times are seconds since the epoch, UTC. ``tag`` is the sampler's own.
    ``asked_seq`` and ``ended_seq`` order the sampler's asks and the trials' ends, since
    clocks jump; ``ended_seq`` is None while the trial is open.
    """

    trial_id: str
    attempt: int
    state: TrialState
    params: Params
    engine: str
    sampler: str
    sampler_impl: str
    seed: int
    study_digest: str
    tag: dict[str, Any] = dataclasses.field(default_factory=dict)
    epochs: int | None = None
    resume_from: str | None = None
    failure: Failure | None = None
    value: float | None = None
    best_step: int | None = None
    history: tuple[Report, ...] = ()
    worker: str | None = None
    device: str | None = None
    queued_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    error: str | None = None
    asked_seq: int = 0
    ended_seq: int | None = None

    @property
    def fit_s(self) -> float | None:
        """Seconds from being handed out to the end; None as long as there is no end."""
        if self.started_at is None or self.ended_at is None:
            return None
        return self.ended_at - self.started_at

    def to_json(self) -> dict[str, Any]:
        """The stable shape that ``trials --json`` prints, one object an attempt."""
        return {
            "trial_id": self.trial_id,
            "attempt": self.attempt,
            "state": self.state.value,
            "failure": self.failure.value if self.failure else None,
            "params": self.params,
            "value": self.value,
            "history": [{"step": r.step, "metrics": r.metrics} for r in self.history],
            "engine": self.engine,
            "sampler": self.sampler,
            "sampler_impl": self.sampler_impl,
            "seed": self.seed,
            "worker": self.worker,
            "device": self.device,
            "queued_at": iso_utc(self.queued_at),
            "started_at": iso_utc(self.started_at),
            "ended_at": iso_utc(self.ended_at),
            "error": self.error,
        }


def iso_utc(seconds: float | None) -> str | None:
    """Seconds since the epoch as ISO 8601 in UTC, to the millisecond."""
    if seconds is None:
        return None
    moment = datetime.datetime.fromtimestamp(seconds, tz=datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
