"""What passes between a coordinator, its driver and its ledger: plain, immutable data."""

from __future__ import annotations

import dataclasses
import enum
from typing import Protocol

from hpo.crew import Crew
from hpo.trial import Direction, Report, TrialRecord


class Clock(Protocol):
    """Both kinds of time; injected, so that a test or a replay owns it."""

    def monotonic(self) -> float:
        """Seconds that never go back: leases are counted in these."""

    def wall(self) -> float:
        """Seconds since the epoch, UTC: records are dated with these."""


@dataclasses.dataclass(frozen=True)
class Rules:
    """What was asked of a search. ``wanted`` None means: until the sampler is exhausted.

    An attempt that runs for longer than ``trial_timeout_s`` seconds ends its trial as failed.
    ``lost_attempts`` is how many may be lost with their worker; a trial whose code raises is
    tried ``code_retries`` times again, one that runs out of memory ``oom_retries`` times and
    alone. The same error in ``same_error`` trials ends the search, as do ``max_hours`` with
    trials running, ``max_gpu_hours`` of theirs, and ``without_workers_s`` seconds without a
    worker. With ``ahead`` points are proposed before somebody asks for them.
    """

    wanted: int | None
    objective: str
    direction: Direction
    seed: int
    engine: str
    sampler: str
    study_digest: str
    lease_s: float = 30.0
    lost_attempts: int = 5
    trial_timeout_s: float | None = None
    code_retries: int = 1
    oom_retries: int = 1
    same_error: int = 3
    max_hours: float | None = None
    max_gpu_hours: float | None = None
    without_workers_s: float = 3600.0
    ahead: bool = False


@dataclasses.dataclass(frozen=True)
class WorkerInfo:
    """A worker's process. ``incarnation`` tells it from others that use the same id."""

    worker_id: str
    incarnation: str
    host: str
    pid: int
    device: str

    @property
    def gpus(self) -> int:
        """How many GPUs its trials hold."""
        return self.device.count("gpu:")


@dataclasses.dataclass(frozen=True)
class WorkerRow:
    """A worker with when it came and, once it has gone, when it was last heard of."""

    info: WorkerInfo
    joined_at: float
    left_at: float | None = None


@dataclasses.dataclass(frozen=True)
class Attempt:
    """An attempt as it is stored: its record, its fencing number, and how often it was lost.

    ``fence`` is 0 until the attempt is handed out. ``lost`` counts the earlier attempts of
    the trial that were lost with their worker, since it last went on from further than before.
    """

    record: TrialRecord
    fence: int = 0
    lost: int = 0


# Effects: what the driver does after a call.
@dataclasses.dataclass(frozen=True)
class StoreAttempt:
    """Write the attempt's row."""

    attempt: Attempt


@dataclasses.dataclass(frozen=True)
class StoreReport:
    """Write one step of an attempt; the same step again replaces it."""

    record: TrialRecord
    report: Report


@dataclasses.dataclass(frozen=True)
class StoreWorker:
    """Write the worker's row."""

    row: WorkerRow


class EarlyEnd(enum.StrEnum):
    """Why a search ended with fewer trials than were asked for, other than by being stopped."""

    EXHAUSTED = "EXHAUSTED"
    BUDGET = "BUDGET"
    ERROR = "ERROR"
    NO_WORKERS = "NO_WORKERS"


@dataclasses.dataclass(frozen=True)
class StoreEarlyEnd:
    """Write that, and why, a search ends early; ``words`` are for who reads its summary."""

    reason: EarlyEnd
    words: str


@dataclasses.dataclass(frozen=True)
class Spent:
    """Seconds in which trials ran, and GPU-seconds that they took, in all of a run."""

    running_s: float = 0.0
    gpu_s: float = 0.0


NOTHING_SPENT = Spent()


@dataclasses.dataclass(frozen=True)
class StoreSpent:
    """Write what was spent so far."""

    spent: Spent


@dataclasses.dataclass(frozen=True)
class StoreCrew:
    """Write how many workers are wanted, and who is to leave."""

    crew: Crew


@dataclasses.dataclass(frozen=True)
class AskSampler:
    """Ask what to try as ``trial_id``; the answer comes back as :meth:`Coordinator.proposed`."""

    trial_id: str


@dataclasses.dataclass(frozen=True)
class TellSampler:
    """Tell the sampler how a trial ended."""

    record: TrialRecord


Effect = (
    StoreAttempt
    | StoreReport
    | StoreWorker
    | StoreEarlyEnd
    | StoreSpent
    | StoreCrew
    | AskSampler
    | TellSampler
)


# Answers to a worker that asks for a trial.
@dataclasses.dataclass(frozen=True)
class Grant:
    """Run this attempt, under its fencing number."""

    attempt: Attempt


class Later:
    """Nothing to run just now."""


@dataclasses.dataclass(frozen=True)
class Stop:
    """Leave: the search is ``done``, or is being ``drained`` with work left; or the worker is
    ``dismissed``, since fewer are wanted.
    """

    reason: str


class Verdict(enum.StrEnum):
    """The answer to a report, an end or a heartbeat."""

    GO_ON = "GO_ON"
    STOP = "STOP"
    # Save what there is and give the trial back: the search is about to leave.
    SUSPEND = "SUSPEND"
    LOST = "LOST"
