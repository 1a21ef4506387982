"""A search replayed from a table under a virtual clock: real rules, real samplers, real pruners.

What is simulated is only what would take long: nodes, which are events in a heap, and
training, of which the table knows how it came out and how long it took. The chief is one
thing after another, as the real one is: each call costs it what our code takes here and
what is stated for the rest, and each suggestion keeps its sampler busy for as long as it
takes here: in processor time, or on the clock where a sampler lives in another process.
"""

from __future__ import annotations

import dataclasses
import gc
import heapq
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

from hpo.benchmark.nearest import Rows
from hpo.benchmark.nodes import Nodes
from hpo.benchmark.table import Step, Table
from hpo.benchmark.trace import Trace, trace_of
from hpo.coordinator import Coordinator
from hpo.protocol import (
    AskSampler,
    Attempt,
    Grant,
    Rules,
    Stop,
    StoreAttempt,
    StoreWorker,
    TellSampler,
    Verdict,
    WorkerInfo,
    WorkerRow,
)
from hpo.pruners import Pruner
from hpo.samplers.base import Answer, Exhausted, Proposal, Sampler
from hpo.trial import Report, TrialRecord

# The chief's own tick is shorter; nothing here depends on it but leases and budgets.
_TICK_S = 5.0


@dataclasses.dataclass
class VirtualClock:
    """Stands still but for what the replay says."""

    now: float = 0.0

    def monotonic(self) -> float:
        """Seconds since the search began."""
        return self.now

    def wall(self) -> float:
        """The same: a replay has no date."""
        return self.now


@dataclasses.dataclass
class _Node:
    """A worker and its node; after a preemption another node has the same worker id."""

    worker_id: str
    life: int = 0
    speed: float = 1.0
    # What it is in the middle of: an event for an earlier life or attempt is void.
    fence: int = 0

    @property
    def info(self) -> WorkerInfo:
        return WorkerInfo(self.worker_id, str(self.life), self.worker_id, 1, "simulated")


@dataclasses.dataclass
class _Work:
    """An attempt on its node: its steps that are left, and when it was last saved."""

    attempt: Attempt
    steps: Iterator[Step]
    overhead_s: float
    saved_at: float


class Replay:
    """One search over ``table`` by ``workers`` nodes; :meth:`run` answers its trace.

    ``seed`` decides the curve of each configuration and what the nodes are like, so that
    searches of one seed are pairs, whatever their sampler.
    """

    def __init__(
        self,
        table: Table,
        sampler: Sampler,
        pruner: Pruner,
        rules: Rules,
        workers: int,
        nodes: Nodes,
    ) -> None:
        self.table, self.sampler, self.rules, self.nodes = table, sampler, rules, nodes
        self.clock = VirtualClock()
        self.coordinator = Coordinator(rules, self.clock, pruner=pruner)
        self.suggesting_s = 0.0
        # What of that this thread computed itself.
        self._thought_s = 0.0
        self._time = time.perf_counter if sampler.thinks_elsewhere else time.thread_time
        # Which row of the table each trial has.
        self.row_of: dict[str, int] = {}
        self._rows = Rows(table.space, table.configurations)
        self._seed_of_row = table.drawn(rules.seed)
        self._nodes = [_Node(f"worker-{number}") for number in range(workers)]
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._waiters: dict[str, _Node] = {}
        self._chief_free = self._sampler_free = 0.0
        self._records: dict[tuple[str, int], TrialRecord] = {}
        self._workers: dict[tuple[str, str], WorkerRow] = {}
        # The last step that each trial was saved after, and the last that it came to.
        self._saved: dict[str, int] = {}
        self._last_step: dict[str, int] = {}

    def run(self) -> Trace:
        """Replays the search to its end."""
        for node in self._nodes:
            self._at(self._drawn(node, "start", self.nodes.start_s), self._arrive(node))
        self._at(_TICK_S, self._tick)
        # Collections would be charged to whichever call they fall into.
        gc.disable()
        try:
            while self._heap and not self._over:
                at, _, event = heapq.heappop(self._heap)
                self.clock.now = max(at, self._chief_free, self.clock.now)
                began, thought = time.thread_time(), self._thought_s
                event()
                self._settle()
                self._charge_chief(time.thread_time() - began - (self._thought_s - thought))
        finally:
            gc.enable()
        early = self.coordinator.early_words
        return trace_of(
            list(self._records.values()),
            list(self._workers.values()),
            0.0,
            self.suggesting_s,
            early,
        )

    @property
    def _over(self) -> bool:
        return self.coordinator.over and not self.coordinator.workers

    def _at(self, when: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (when, next(self._order), event))

    def _after(self, seconds: float, event: Callable[[], None]) -> None:
        self._at(self.clock.now + seconds, event)

    def _drawn(self, node: _Node, what: str, draw: Any) -> float:
        number: float = draw.of(self.rules.seed, what, node.worker_id, node.life)
        return number

    def _charge_chief(self, took_s: float) -> None:
        cost = self.nodes.call_s + (took_s if self.nodes.suggestion_s is None else 0.0)
        self._chief_free = self.clock.now + cost

    # --- nodes ------------------------------------------------------------------------

    def _arrive(self, node: _Node) -> Callable[[], None]:
        def event() -> None:
            if self._stopping:
                return
            node.speed = max(self._drawn(node, "speed", self.nodes.speed), 1e-6)
            self.coordinator.joined(node.info)
            if self.nodes.preempted_after_s:
                lives = self._drawn(node, "life", self.nodes.preempted_after_s)
                self._after(lives, self._preempt(node, node.life))
            self._ask(node)

        return event

    @property
    def _stopping(self) -> bool:
        return self.coordinator.over

    def _preempt(self, node: _Node, life: int) -> Callable[[], None]:
        def event() -> None:
            if node.life != life or self._stopping:
                return
            # Nobody tells the chief: it finds out by the lease, or by who takes the place.
            node.life, node.fence = life + 1, 0
            self._waiters.pop(node.worker_id, None)
            self._after(self._drawn(node, "start", self.nodes.start_s), self._arrive(node))

        return event

    def _tick(self) -> None:
        for node in self._nodes:
            self.coordinator.beat_of(node.info)
        self.coordinator.tick()
        self._settle()
        self._wake(None)
        self._after(_TICK_S, self._tick)

    def _ask(self, node: _Node) -> None:
        answer = self.coordinator.asked(node.worker_id, str(node.life))
        if isinstance(answer, Grant):
            self._begin(node, answer.attempt)
        elif isinstance(answer, Stop):
            self.coordinator.left(node.worker_id, str(node.life))
            # It is gone for good: what it might still be sent finds nobody.
            node.life += 1
        else:
            self._waiters[node.worker_id] = node

    def _wake(self, most: int | None) -> None:
        for worker_id in list(itertools.islice(self._waiters, most)):
            self._ask(self._waiters.pop(worker_id))

    # --- trials -----------------------------------------------------------------------

    def _begin(self, node: _Node, attempt: Attempt) -> None:
        record = attempt.record
        row = self.row_of[record.trial_id]
        curve = int(self._seed_of_row[row])
        first = self._goes_on_after(record)
        if record.attempt > 1 and first:
            self.coordinator.resumed(record.trial_id, attempt.fence, first)
        # A promoted trial goes on where the one before ended.
        steps = itertools.islice(self.table.curve(row, curve), first, record.epochs)
        overhead = 0.0 if self.table.overhead is None else self.table.overhead[row, curve]
        node.fence = attempt.fence
        self._go_on(node, _Work(attempt, steps, float(overhead), self.clock.now))

    def _goes_on_after(self, record: TrialRecord) -> int:
        if saved := self._saved.get(record.trial_id):
            return saved
        return self._last_step.get(record.resume_from, 0) if record.resume_from else 0

    def _go_on(self, node: _Node, work: _Work) -> None:
        step = next(work.steps, None)
        seconds = work.overhead_s if step is None else step.seconds
        fence, life = work.attempt.fence, node.life

        def event() -> None:
            # Unless the node or its attempt was lost meanwhile.
            if (node.fence, node.life) != (fence, life):
                return
            if step is None:
                self._end(node, work)
            else:
                self._report(node, work, step)

        self._after(seconds / node.speed, event)

    def _report(self, node: _Node, work: _Work, step: Step) -> None:
        trial_id = work.attempt.record.trial_id
        report = Report(step.number, step.metrics)
        verdict = self.coordinator.reported(trial_id, work.attempt.fence, report)
        if verdict is Verdict.GO_ON:
            self._last_step[trial_id] = step.number
            if self.clock.now - work.saved_at >= self.nodes.checkpoint_s:
                self._saved[trial_id], work.saved_at = step.number, self.clock.now
            self._go_on(node, work)
        elif verdict is Verdict.LOST:
            self._free(node)
        else:
            self._end(node, work)

    def _end(self, node: _Node, work: _Work) -> None:
        record = work.attempt.record
        self.coordinator.ended(record.trial_id, work.attempt.fence, completed=True)
        self._settle()
        self._free(node)

    def _free(self, node: _Node) -> None:
        node.fence = 0
        self._ask(node)

    # --- what the chief does with the coordinator's effects ---------------------------

    def _settle(self) -> None:
        while self.coordinator.outbox:
            effects, self.coordinator.outbox = self.coordinator.outbox, []
            for effect in effects:
                if isinstance(effect, StoreAttempt):
                    record = effect.attempt.record
                    self._records[record.trial_id, record.attempt] = record
                elif isinstance(effect, StoreWorker):
                    info = effect.row.info
                    self._workers[info.worker_id, info.incarnation] = effect.row
                elif isinstance(effect, AskSampler):
                    self._suggest(effect.trial_id)
                elif isinstance(effect, TellSampler):
                    self._thinking(lambda record=effect.record: self.sampler.told(record))  # type: ignore[misc]
            if self._waiters:
                self._wake(self.coordinator.worth_asking)

    def _thinking(self, work: Callable[[], Any]) -> Any:
        """Lets the sampler do ``work``; it is busy for as long as that takes."""
        # Processor time, which other work on this machine does not change.
        began, began_here = self._time(), time.thread_time()
        answer = work()
        took = self._time() - began
        self._thought_s += time.thread_time() - began_here
        self._keep_thinking(took if self.nodes.suggestion_s is None else 0.0)
        return answer

    def _keep_thinking(self, seconds: float) -> None:
        self.suggesting_s += seconds
        self._sampler_free = max(self._sampler_free, self.clock.now) + seconds

    def _suggest(self, trial_id: str) -> None:
        pending = self.coordinator.pending
        answer: Answer = self._thinking(lambda: self._proposal(trial_id, pending))
        self._keep_thinking(self.nodes.suggestion_s or 0.0)
        self._at(self._sampler_free, lambda: self._proposed(trial_id, answer))

    def _proposal(self, trial_id: str, pending: list[TrialRecord]) -> Answer:
        try:
            return self.sampler.ask(trial_id, pending)
        except Exception as error:
            if not self.sampler.model_based:
                raise
            return self.sampler.fall_back(trial_id, error)

    def _proposed(self, trial_id: str, answer: Answer) -> None:
        if isinstance(answer, Proposal):
            answer = self._in_the_table(trial_id, answer)
        self.coordinator.proposed(trial_id, answer, self.sampler.implementation)

    def _in_the_table(self, trial_id: str, proposal: Proposal) -> Proposal | Exhausted:
        """The proposal as a row of the table, of which the sampler is told."""
        if proposal.resume_from is not None:
            self.row_of[trial_id] = self.row_of[proposal.resume_from]
            return proposal
        if not self._rows.left:
            return Exhausted()
        row = self._rows.take(proposal.params)
        self.row_of[trial_id] = row
        params = self.table.configurations[row]
        if params == proposal.params:
            return proposal
        self.sampler.moved(trial_id, proposal.params, params)
        return dataclasses.replace(proposal, params=params)
