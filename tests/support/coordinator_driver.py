"""A search without threads or sockets: the coordinator, its books and a clock of one's own."""

from __future__ import annotations

import dataclasses
from typing import Any

from hpo.coordinator import Coordinator
from hpo.crew import NOBODY, Crew
from hpo.parameter import Condition, Kind, Parameter
from hpo.protocol import (
    AskSampler,
    Attempt,
    Grant,
    Later,
    Rules,
    StoreAttempt,
    StoreCrew,
    StoreReport,
    StoreWorker,
    TellSampler,
    Verdict,
    WorkerInfo,
    WorkerRow,
)
from hpo.pruners import NoPruner, Pruner
from hpo.samplers.base import Sampler
from hpo.samplers.random import RandomSampler
from hpo.space import SearchSpace
from hpo.study import Study
from hpo.trial import Direction, Report, TrialRecord

LEASE_S = 30.0
SPACE = SearchSpace(
    [
        Parameter("kind", Kind.CHOICE, values=("a", "b")),
        Parameter("n", Kind.INT, low=1, high=3, conditions=(Condition("kind", ("b",)),)),
        Parameter("flag", Kind.BOOLEAN),
    ]
)
POINTS = 8


def a_study(direction: Direction = Direction.MIN) -> Study:
    return Study("s", "function", "loss", direction, 1, 1, SPACE, {}, "digest")


@dataclasses.dataclass
class Clock:
    now: float = 1000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now + 1e9


@dataclasses.dataclass
class Books:
    """What a ledger holds: whole outboxes, in order."""

    attempts: dict[tuple[str, int], Attempt] = dataclasses.field(default_factory=dict)
    reports: dict[tuple[str, int], dict[int, Report]] = dataclasses.field(default_factory=dict)
    workers: dict[tuple[str, str], WorkerRow] = dataclasses.field(default_factory=dict)
    crew: Crew = NOBODY

    def commit(self, effects: list[Any]) -> None:
        for effect in effects:
            if isinstance(effect, StoreAttempt):
                record = effect.attempt.record
                self.attempts[record.trial_id, record.attempt] = effect.attempt
            elif isinstance(effect, StoreReport):
                key = (effect.record.trial_id, effect.record.attempt)
                self.reports.setdefault(key, {})[effect.report.step] = effect.report
            elif isinstance(effect, StoreWorker):
                info = effect.row.info
                self.workers[info.worker_id, info.incarnation] = effect.row
            elif isinstance(effect, StoreCrew):
                self.crew = effect.crew

    def stored(self) -> list[Attempt]:
        """The attempts as a reader gives them: with their reports, by ask and number."""
        found = []
        for key, attempt in self.attempts.items():
            reports = self.reports.get(key, {})
            history = tuple(reports[step] for step in sorted(reports))
            record = dataclasses.replace(attempt.record, history=history)
            found.append(dataclasses.replace(attempt, record=record))
        return sorted(found, key=lambda a: (a.record.asked_seq, a.record.attempt))

    def latest(self) -> dict[str, TrialRecord]:
        return {a.record.trial_id: a.record for a in self.stored()}


class ChiefDiedError(Exception):
    """The chief died before it answered; another one has taken its place."""


def host_of(worker_id: str) -> str:
    """Most workers share a host, on which memory can run out."""
    return "far" if worker_id == "worker-2" else "near"


class Driver:
    """Does with a coordinator's effects what the chief does, without threads or sockets.

    With ``commits_left`` it dies instead of committing once more; while it is ``slow`` the
    sampler's answers wait for :meth:`think`.
    """

    def __init__(
        self, rules: Rules, sampler: type[Sampler], study: Study, pruner: type[Pruner] = NoPruner
    ) -> None:
        self.rules, self.sampler_class, self.study = rules, sampler, study
        self.pruner_class = pruner
        self.clock, self.books = Clock(), Books()
        self.slow = False
        self.start()

    def start(self) -> None:
        """Makes coordinator and sampler from the books, as after a crash."""
        self.commits_left: int | None = None
        self.asked: list[str] = []
        stored = self.books.stored()
        self.sampler = self.sampler_class(self.study, self.rules.seed)
        self.sampler.restore(list(self.books.latest().values()))
        self.coordinator = Coordinator(
            self.rules,
            self.clock,
            stored,
            list(self.books.workers.values()),
            crew=self.books.crew,
            pruner=self.pruner_class(self.rules.direction, 9, self.rules.seed),
        )
        self.settle()

    def settle(self) -> None:
        """Performs effects until there are none; each outbox is committed whole."""
        while self.coordinator.outbox:
            effects, self.coordinator.outbox = self.coordinator.outbox, []
            self._commit(effects)
            for effect in effects:
                if isinstance(effect, AskSampler):
                    self.asked.append(effect.trial_id)
                elif isinstance(effect, TellSampler):
                    self.sampler.told(effect.record)
            if not self.slow:
                self._answer()

    def think(self) -> None:
        """Lets a slow sampler come up with its answers."""
        self._answer()
        self.settle()

    def _commit(self, effects: list[Any]) -> None:
        if self.commits_left == 0:
            self.start()
            raise ChiefDiedError
        if self.commits_left:
            self.commits_left -= 1
        self.books.commit(effects)

    def _answer(self) -> None:
        asked, self.asked = self.asked, []
        for trial_id in asked:
            answer = self.sampler.ask(trial_id, self.coordinator.pending)
            self.coordinator.proposed(trial_id, answer, self.sampler.implementation)

    def do(self, event: str, *arguments: Any) -> Any:
        """One event with all its consequences."""
        answer = getattr(self.coordinator, event)(*arguments)
        self.settle()
        return answer

    def join(self, worker_id: str, incarnation: str = "1") -> None:
        self.do("joined", WorkerInfo(worker_id, incarnation, host_of(worker_id), 1, "cpu"))

    def ask(self, worker_id: str, incarnation: str = "1") -> Any:
        """What a worker gets that waits for an answer."""
        answer = self.do("asked", worker_id, incarnation)
        return self.do("asked", worker_id, incarnation) if isinstance(answer, Later) else answer

    def report(self, grant: Grant, step: int = 1, **metrics: float) -> Verdict:
        attempt = grant.attempt
        report = Report(step, metrics)
        verdict: Verdict = self.do("reported", attempt.record.trial_id, attempt.fence, report)
        return verdict

    def end(self, grant: Grant, completed: bool = True) -> Verdict:
        attempt = grant.attempt
        verdict: Verdict = self.do("ended", attempt.record.trial_id, attempt.fence, completed)
        return verdict


def rules(
    wanted: int | None = 4, direction: Direction = Direction.MIN, seed: int = 1, **limits: Any
) -> Rules:
    """Where nothing else is said, a trial that failed is not tried again."""
    limits = {"code_retries": 0, "oom_retries": 0, **limits}
    return Rules(wanted, "loss", direction, seed, "engine", "sampler", "digest", LEASE_S, **limits)


def a_driver(pruner: type[Pruner] = NoPruner, **changes: Any) -> Driver:
    own = rules(**changes)
    return Driver(own, RandomSampler, a_study(own.direction), pruner)


def a_busy_worker(**changes: Any) -> tuple[Driver, Grant]:
    driver = a_driver(**changes)
    driver.join("w")
    return driver, driver.ask("w")
