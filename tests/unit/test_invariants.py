"""The rules of a search, against generated sequences of events."""

from __future__ import annotations

import collections
import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from hpo.attempts import retried
from hpo.crew import Crew, worker_ids
from hpo.leases import ReplacedWorkerError, UnknownWorkerError
from hpo.protocol import (
    Grant,
    Stop,
    Verdict,
)
from hpo.pruners import AshaPruner, NoPruner, Pruner
from hpo.samplers.base import Sampler
from hpo.samplers.grid import GridSampler
from hpo.samplers.random import RandomSampler
from hpo.trial import Failure, TrialRecord, TrialState
from tests.support.coordinator_driver import (
    POINTS,
    SPACE,
    ChiefDiedError,
    Driver,
    a_study,
    host_of,
    rules,
)


def unless_the_chief_dies(body: Callable[..., None]) -> Callable[..., None]:
    """What a worker was about changes nothing in what it knows if it gets no answer."""

    @functools.wraps(body)
    def guarded(self: Search, **drawn: Any) -> None:
        try:
            body(self, **drawn)
        except ChiefDiedError:
            self.after_a_death()

    return guarded


class Search(RuleBasedStateMachine):
    """Workers that come, work, repeat themselves, die, pause and are replaced; a chief that dies.

    What a worker believes is kept apart from what the coordinator knows, as in life.
    """

    sampler: type[Sampler] = RandomSampler
    pruner: type[Pruner] = NoPruner
    wanted = 6

    @initialize(retries=st.integers(0, 2))
    def begin(self, retries: int) -> None:
        own = rules(
            self.wanted,
            lost_attempts=3,
            code_retries=retries,
            oom_retries=retries,
            same_error=10**6,
            without_workers_s=1e9,
        )
        self.driver = Driver(own, self.sampler, a_study(), self.pruner)
        self.driver.books.crew = Crew(3)
        self.driver.start()
        self.size = 3
        self.retried: collections.Counter[str] = collections.Counter()
        self.incarnations: dict[str, int] = {}
        self.holds: dict[tuple[str, str], Grant | None] = {}
        self.fences: dict[int, tuple[str, int]] = {}
        self.acknowledged: dict[str, TrialRecord] = {}
        self.draining = False

    names = st.sampled_from(worker_ids(3))

    def worker(self, name: str) -> tuple[str, str]:
        """The newest process of this name, started if there is none."""
        if name not in self.incarnations:
            self._start(name)
        return name, str(self.incarnations[name])

    @rule(name=names)
    @unless_the_chief_dies
    def start_process(self, name: str) -> None:
        """A worker starts, or another process takes over its name."""
        self._start(name)

    def _start(self, name: str) -> None:
        self.incarnations[name] = self.incarnations.get(name, 0) + 1
        key = (name, str(self.incarnations[name]))
        self.holds[key] = None
        try:
            self.driver.join(*key)
        except ChiefDiedError:
            # Its first call is repeated until there is an answer.
            self.after_a_death()
            self.driver.join(*key)

    @rule(name=names, leaves=st.booleans())
    @unless_the_chief_dies
    def join_again(self, name: str, leaves: bool) -> None:
        """A worker whose first call got no answer, or that left and starts again."""
        key = self.worker(name)
        self.driver.join(*key)
        if leaves:
            self.driver.do("left", *key)
            self.holds[key] = None
            self.driver.join(*key)

    @rule(name=names)
    @unless_the_chief_dies
    def ask(self, name: str) -> None:
        key = self.worker(name)
        try:
            answer = self.driver.ask(*key)
        except UnknownWorkerError:
            self.holds[key] = None
            self.driver.join(*key)
            return
        if isinstance(answer, Grant):
            record, fence = answer.attempt.record, answer.attempt.fence
            assert record.trial_id not in self.acknowledged, "a finished trial runs again"
            assert not (self.draining and self.holds[key] is None and fence not in self.fences)
            assert fence in self.fences or fence > max(self.fences, default=0), "fences grow"
            dismissed = self.driver.coordinator.crew.dismissed
            assert fence in self.fences or name not in dismissed, "it was to leave"
            known = self.fences.setdefault(fence, (record.trial_id, record.attempt))
            assert known == (record.trial_id, record.attempt), "a fence was used twice"
            self.holds[key] = answer
        elif isinstance(answer, Stop):
            found = self.driver.coordinator
            expected = "drained" if self.draining else "dismissed"
            assert answer.reason == (expected if found.work_left else "done")
            assert self.draining or not found.work_left or name in found.crew.dismissed

    @rule(size=st.integers(1, 3))
    @unless_the_chief_dies
    def scale(self, size: int) -> None:
        self.driver.do("scaled", size)
        self.size = size

    @rule(chance=st.integers(0, 4))
    def the_failed_are_retried(self, chance: int) -> None:
        """Between one chief and the next."""
        if chance:
            return
        again = retried(self.driver.books.stored(), self.driver.clock.wall())
        self.driver.books.commit(again)
        for effect in again:
            self.acknowledged.pop(effect.attempt.record.trial_id, None)
            self.retried[effect.attempt.record.trial_id] += 1
        self.driver.start()
        self.after_a_death()

    @rule(name=names, repeated=st.booleans(), step=st.integers(1, 3), loss=st.floats(0, 1))
    @unless_the_chief_dies
    def report(self, name: str, repeated: bool, step: int, loss: float) -> None:
        grant = self.holds.get(self.worker(name))
        if grant:
            verdict = self.driver.report(grant, step, loss=loss)
            if repeated:
                assert self.driver.report(grant, step, loss=loss) is verdict
            last = self.driver.books.latest()[grant.attempt.record.trial_id]
            if verdict is Verdict.STOP:
                # Its worker has yet to say that it ended, and may never come to that.
                assert last.state is TrialState.PRUNED
                self.acknowledged.setdefault(last.trial_id, last)
            self.check_loss(self.worker(name), grant, verdict)

    @rule(name=names, step=st.integers(1, 3))
    @unless_the_chief_dies
    def go_on(self, name: str, step: int) -> None:
        """From a checkpoint of the attempt before."""
        grant = self.holds.get(self.worker(name))
        if grant and grant.attempt.record.attempt > 1:
            own = grant.attempt.record
            verdict = self.driver.do("resumed", own.trial_id, grant.attempt.fence, step)
            self.check_loss(self.worker(name), grant, verdict)
            attempt = self.driver.books.attempts[own.trial_id, own.attempt]
            assert verdict is Verdict.LOST or attempt.lost <= grant.attempt.lost

    failures = st.sampled_from([None, Failure.CODE, Failure.OOM, Failure.NAN])

    @rule(name=names, failure=failures, repeated=st.booleans())
    @unless_the_chief_dies
    def end(self, name: str, failure: Failure | None, repeated: bool) -> None:
        key = self.worker(name)
        grant = self.holds.get(key)
        if not grant:
            return
        completed = failure is None
        if failure:
            self.driver.do(
                "explained", grant.attempt.record.trial_id, grant.attempt.fence, failure, "why"
            )
        verdict = self.driver.end(grant, completed)
        if repeated:
            assert self.driver.end(grant, completed) is verdict
        if verdict is Verdict.GO_ON:
            own = grant.attempt.record
            record = self.driver.books.attempts[own.trial_id, own.attempt].record
            assert record.state.ended
            assert record.failure is not Failure.PREEMPTED, "a result was dropped and acknowledged"
            last = self.driver.books.latest()[own.trial_id]
            if last.attempt == own.attempt:
                self.acknowledged.setdefault(last.trial_id, last)
        self.check_loss(key, grant, verdict)
        self.holds[key] = None

    @rule(name=names, older=st.integers(1, 3))
    def speak_as_an_older_process(self, name: str, older: int) -> None:
        """A process that was replaced comes back from a pause."""
        key = (name, str(self.incarnations.get(name, 0) - older))
        if key not in self.holds:
            return
        with pytest.raises((ReplacedWorkerError, UnknownWorkerError)):
            self.driver.ask(*key)
        grant = self.holds[key]
        before = copy.deepcopy(self.driver.books)
        # What it had ended before its pause it may say again.
        if grant and grant.attempt.record.trial_id not in self.acknowledged:
            assert self.driver.report(grant, 9, loss=-1.0) is Verdict.LOST
            assert self.driver.end(grant) is Verdict.LOST
            assert self.driver.books == before, "a late result changed something"

    @rule(name=names)
    @unless_the_chief_dies
    def beat(self, name: str) -> None:
        key = self.worker(name)
        grant = self.holds.get(key)
        try:
            verdict = self.driver.do("beat", *key, grant.attempt.fence if grant else 0)
        except UnknownWorkerError:
            self.holds[key] = None
            self.driver.join(*key)
            return
        if grant:
            self.check_loss(key, grant, verdict)

    @rule(seconds=st.sampled_from([0.0, 1.0, 9.0]), times=st.integers(1, 5))
    @unless_the_chief_dies
    def time_passes(self, seconds: float, times: int) -> None:
        for _ in range(times):
            self.driver.clock.now += seconds
            self.driver.do("tick")

    @rule(seconds=st.sampled_from([100.0, 1e6]))
    @unless_the_chief_dies
    def the_chief_stands_still(self, seconds: float) -> None:
        """Nobody could renew a lease meanwhile, so nobody loses one."""
        running = set(self.driver.coordinator._held_by)
        self.driver.do("tick")
        before = running & set(self.driver.coordinator._held_by)
        self.driver.clock.now += seconds
        self.driver.do("tick")
        assert set(self.driver.coordinator._held_by) == before

    @rule()
    def the_chief_dies(self) -> None:
        """What was committed is all there is; workers know nothing of it."""
        self.driver.start()
        self.after_a_death()

    def after_a_death(self) -> None:
        if self.draining:
            self.driver.do("drain", False)

    @rule(commits=st.integers(0, 3))
    def the_chief_will_die(self, commits: int) -> None:
        """Soon, between two commits: before it has answered some call."""
        self.driver.commits_left = commits

    @rule(slow=st.booleans())
    @unless_the_chief_dies
    def the_sampler_thinks(self, slow: bool) -> None:
        self.driver.slow = slow
        self.driver.think()

    @precondition(lambda self: not self.draining)
    @rule(immediate=st.booleans(), chance=st.integers(0, 4))
    @unless_the_chief_dies
    def drain(self, immediate: bool, chance: int) -> None:
        if chance == 0:
            self.draining = True
            self.driver.do("drain", immediate)

    def check_loss(self, key: tuple[str, str], grant: Grant, verdict: Verdict) -> None:
        """A worker that is told LOST really holds nothing any more."""
        if verdict is Verdict.LOST:
            assert self.driver.coordinator.attempt_under(grant.attempt.fence) is None
            self.holds[key] = None

    @invariant()
    def what_was_acknowledged_stays(self) -> None:
        latest = self.driver.books.latest() if hasattr(self, "driver") else {}
        for trial_id, record in getattr(self, "acknowledged", {}).items():
            assert latest[trial_id] == record

    @invariant()
    def one_holder_a_trial(self) -> None:
        if hasattr(self, "driver"):
            stored = self.driver.books.stored()
            running = [a for a in stored if a.record.state is TrialState.RUNNING]
            assert len({a.record.trial_id for a in running}) == len(running)
            assert len({a.record.worker for a in running}) == len(running)

    @invariant()
    def each_failure_is_retried_as_the_rules_say(self) -> None:
        if hasattr(self, "driver"):
            counts = collections.Counter(
                (a.record.trial_id, a.record.failure) for a in self.driver.books.stored()
            )
            limits = {Failure.NAN: 0}
            for (trial_id, failure), count in counts.items():
                if failure not in (None, Failure.PREEMPTED):
                    allowed = limits.get(failure, self.driver.rules.code_retries)
                    assert count <= 1 + allowed + self.retried[trial_id]

    @invariant()
    def the_size_that_was_acknowledged_stays(self) -> None:
        if hasattr(self, "driver"):
            wanted, dismissed = set(worker_ids(self.size)), set(worker_ids(3)[self.size :])
            crew = self.driver.coordinator.crew
            assert (crew.size, set(crew.dismissed)) == (self.size, dismissed)
            assert not wanted & crew.dismissed

    @invariant()
    def what_ran_out_of_memory_runs_alone(self) -> None:
        if not hasattr(self, "driver"):
            return
        stored = self.driver.books.stored()
        failed = {a.record.trial_id for a in stored if a.record.failure is Failure.OOM}
        hosts: dict[str, list[str]] = {}
        for attempt in stored:
            if attempt.record.state is TrialState.RUNNING:
                host = host_of(str(attempt.record.worker))
                hosts.setdefault(host, []).append(attempt.record.trial_id)
        for together in hosts.values():
            assert len(together) == 1 or not failed & set(together)

    @invariant()
    def lost_attempts_are_capped(self) -> None:
        if hasattr(self, "driver"):
            for attempt in self.driver.books.stored():
                assert attempt.lost < self.driver.rules.lost_attempts

    def teardown(self) -> None:
        """Whatever happened, workers that keep working bring the search to its end."""
        if not hasattr(self, "driver"):
            return
        self.driver.slow, self.driver.commits_left = False, None
        self.driver.think()
        if self.draining:
            # A resumed run starts from the books.
            self.driver.start()
        for _ in range(20 * self.wanted):
            self.driver.clock.now += 1.0
            self.driver.do("tick")
            self.driver.join("finisher")
            answer = self.driver.ask("finisher")
            if isinstance(answer, Stop):
                break
            if isinstance(answer, Grant):
                self.driver.report(answer, loss=0.5)
                self.driver.end(answer)
        else:
            raise AssertionError("the search does not end")
        self.driver.do("left", "finisher", "1")
        self.check_the_end()

    def check_the_end(self) -> None:
        latest = self.driver.books.latest()
        assert self.driver.coordinator.over
        assert not self.driver.coordinator.work_left
        assert len(latest) == min(self.wanted, POINTS)
        assert all(record.state.ended for record in latest.values())
        points = {tuple(record.params.items()) for record in latest.values()}
        assert len(points) == len(latest)
        for trial_id, record in self.acknowledged.items():
            assert latest[trial_id] == record


class GridSearch(Search):
    """The same with the grid: each point exactly once, whatever happened."""

    sampler = GridSampler
    wanted = 100

    def check_the_end(self) -> None:
        super().check_the_end()
        tried = [record.params for record in self.driver.books.latest().values()]
        assert tried == list(SPACE.grid())


class PrunedSearch(Search):
    """The same where trials are ended early: none of these runs again."""

    pruner = AshaPruner


@pytest.mark.parametrize("machine", [Search, GridSearch, PrunedSearch])
def test_the_invariants_hold_whatever_happens(machine: type[Search]) -> None:
    few = settings(max_examples=150, stateful_step_count=40, deadline=None)
    run_state_machine_as_test(machine, settings=few)
