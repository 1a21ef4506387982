"""The rules of a search, case by case."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from hpo.attempts import retried
from hpo.crew import Crew, worker_ids
from hpo.leases import ReplacedWorkerError, UnknownWorkerError
from hpo.protocol import (
    EarlyEnd,
    Grant,
    Later,
    Stop,
    Verdict,
)
from hpo.samplers.base import Proposal, Wait, seed_of
from hpo.samplers.random import RandomSampler
from hpo.study import Study
from hpo.trial import Direction, Failure, Report, TrialRecord, TrialState
from tests.driver import (
    LEASE_S,
    POINTS,
    Driver,
    a_busy_worker,
    a_driver,
    a_study,
    rules,
)


@pytest.mark.parametrize(
    ("direction", "value", "step"), [(Direction.MIN, 0.1, 2), (Direction.MAX, 0.9, 3)]
)
def test_a_trials_value_is_its_best_steps(direction: Direction, value: float, step: int) -> None:
    driver = a_driver(direction=direction)
    driver.join("w")
    grant = driver.ask("w")
    for number, loss in enumerate([0.5, 0.1, 0.9, 0.3], start=1):
        assert driver.report(grant, number, loss=loss) is Verdict.GO_ON
    assert driver.end(grant) is Verdict.GO_ON
    record = driver.books.latest()["0000"]
    assert (record.state, record.value, record.best_step) == ("COMPLETED", value, step)
    assert driver.coordinator.best == dataclasses.replace(record, history=())


@pytest.mark.parametrize("crashed", [False, True])
def test_a_step_reported_again_replaces_the_first(crashed: bool) -> None:
    driver = a_driver()
    driver.join("w")
    grant = driver.ask("w")
    driver.report(grant, 1, loss=0.1)
    driver.report(grant, 2, loss=0.2)
    if crashed:
        driver.start()
    driver.report(grant, 1, loss=0.9)
    driver.end(grant)
    record = driver.books.latest()["0000"]
    assert (record.value, record.best_step) == (0.2, 2)
    assert [report.metrics["loss"] for report in record.history] == [0.9, 0.2]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_objective_that_is_no_number_ends_the_trial(bad: float) -> None:
    driver = a_driver(direction=Direction.MAX)
    driver.join("w")
    grant = driver.ask("w")
    driver.report(grant, 1, loss=0.5)
    assert driver.report(grant, 2, loss=bad) is Verdict.STOP
    assert driver.coordinator.pending[0].value == 0.5
    driver.end(grant)
    record = driver.books.latest()["0000"]
    assert (record.state, record.failure, record.value) == ("FAILED", Failure.NAN, None)
    assert "at step 2" in (record.error or "")


def test_an_objective_that_nobody_reported_is_an_error_that_names_what_was() -> None:
    driver = a_driver()
    driver.join("w")
    grant = driver.ask("w")
    driver.report(grant, 1, accuracy=0.5)
    driver.end(grant)
    record = driver.books.latest()["0000"]
    assert (record.state, record.failure) == ("FAILED", Failure.CODE)
    assert "'loss' was never reported, but accuracy" in (record.error or "")


def test_five_lost_attempts_end_a_trial() -> None:
    driver = a_driver(wanted=1)
    for number in range(5):
        driver.join("w", str(number))
        grant = driver.ask("w", str(number))
        assert grant.attempt.record.attempt == number + 1
    driver.join("w", "last")
    assert isinstance(driver.ask("w", "last"), Stop)
    record = driver.books.latest()["0000"]
    assert (record.state, record.failure, record.attempt) == ("FAILED", Failure.PREEMPTED, 5)
    assert [a.record.state for a in driver.books.stored()] == ["FAILED"] * 5


def test_an_attempt_that_was_stopped_on_purpose_does_not_count_as_lost() -> None:
    driver = a_driver(wanted=1)
    for _ in range(10):
        driver.join("w")
        assert isinstance(driver.ask("w"), Grant)
        driver.do("drain", True)
        assert driver.coordinator.over
        assert driver.ask("w").reason == "drained"
        driver.do("left", "w", "1")
        driver.start()
    assert driver.books.latest()["0000"].state is TrialState.WAITING


def test_a_lease_is_renewed_by_any_call_and_runs_out_without() -> None:
    driver = a_driver()
    driver.join("w")
    grant = driver.ask("w")
    for _ in range(10):
        driver.clock.now += LEASE_S / 4
        driver.do("tick")
        assert driver.do("beat", "w", "1", grant.attempt.fence) is Verdict.GO_ON
    for _ in range(5):
        driver.clock.now += LEASE_S / 4
        driver.do("tick")
    assert driver.report(grant, loss=0.1) is Verdict.LOST
    with pytest.raises(UnknownWorkerError):
        driver.ask("w")
    # It was there until it was last heard of, and not until that was noticed.
    (row,) = driver.books.workers.values()
    assert row.left_at == row.joined_at + 10 * LEASE_S / 4
    lost, again = driver.books.stored()
    assert (lost.record.state, lost.record.failure) == ("FAILED", Failure.PREEMPTED)
    assert lost.record.ended_seq is None
    assert (again.record.state, again.record.attempt, again.lost) == ("WAITING", 2, 1)


def test_a_lost_trial_goes_ahead_of_new_ones() -> None:
    for crashed in (False, True):
        driver, grant = a_busy_worker()
        driver.slow = True
        driver.join("b")
        assert isinstance(driver.ask("b"), Later)
        # The point that it waits for comes when it is gone.
        driver.do("left", "b", "1")
        driver.slow = False
        driver.think()
        driver.join("w", "2")
        if crashed:
            driver.start()
        assert [r.trial_id for r in driver.coordinator.pending] == ["0000", "0001"]
        assert driver.ask("w", "2").attempt.record.trial_id == grant.attempt.record.trial_id


def test_a_worker_that_leaves_in_the_middle_costs_no_attempt() -> None:
    driver = a_driver(wanted=1)
    for number in range(10):
        driver.join("w", str(number))
        assert isinstance(driver.ask("w", str(number)), Grant)
        driver.do("left", "w", str(number))
    assert driver.books.latest()["0000"].state is TrialState.WAITING
    assert {attempt.lost for attempt in driver.books.stored()} == {0}


def test_workers_without_work_wait_until_the_last_trial_has_ended() -> None:
    driver = a_driver(wanted=1)
    driver.join("a")
    driver.join("b")
    grant = driver.ask("a")
    assert isinstance(driver.ask("b"), Later)
    driver.report(grant, loss=1.0)
    driver.end(grant)
    assert driver.ask("b") == Stop("done")
    assert [info.worker_id for info in driver.coordinator.workers] == ["a", "b"]
    driver.do("left", "a", "1")
    driver.do("left", "b", "1")
    assert driver.coordinator.workers == []


def test_of_equal_values_the_same_one_is_best_after_a_crash() -> None:
    driver = a_driver(wanted=3)
    for name in ("a", "b"):
        driver.join(name)
    one, two = driver.ask("a"), driver.ask("b")
    for grant in (two, one):
        driver.report(grant, loss=0.5)
        driver.end(grant)
    best = driver.coordinator.best
    assert best is not None
    assert best.trial_id == two.attempt.record.trial_id
    driver.start()
    assert driver.coordinator.best is not None
    assert driver.coordinator.best.trial_id == best.trial_id


# --- more or fewer workers, and failed trials again ---------------------------------------


def test_who_is_dismissed_ends_its_trial_first_and_may_be_called_back() -> None:
    driver = a_driver(wanted=9)
    driver.books.crew = Crew(2)
    driver.start()
    for name in (*worker_ids(2), "by-hand"):
        driver.join(name)
    grant = driver.ask("worker-1")
    driver.do("scaled", 1)
    driver.start()
    assert driver.ask("worker-1").attempt.fence == grant.attempt.fence
    driver.report(grant, loss=0.5)
    assert driver.end(grant) is Verdict.GO_ON
    assert driver.ask("worker-1") == Stop("dismissed")
    assert isinstance(driver.ask("worker-0"), Grant)
    assert isinstance(driver.ask("by-hand"), Grant)
    driver.do("scaled", 2)
    assert isinstance(driver.ask("worker-1"), Grant)


def test_nobody_is_asked_for_a_point_that_only_a_dismissed_worker_waits_for() -> None:
    driver = a_driver(wanted=9)
    driver.books.crew = Crew(2)
    driver.start()
    driver.slow = True
    driver.join("worker-1")
    assert isinstance(driver.do("asked", "worker-1", "1"), Later)
    driver.do("scaled", 1)
    assert driver.ask("worker-1") == Stop("dismissed")
    driver.think()
    driver.do("tick")
    assert len(driver.books.latest()) == 1
    assert driver.asked == []


def test_a_failed_trial_gets_another_attempt_and_the_others_stay_as_they_are() -> None:
    driver, grant = a_busy_worker(wanted=3)
    driver.report(grant, 1, loss=0.1)
    driver.end(grant, completed=False)
    kept = driver.ask("w")
    driver.report(kept, 1, loss=0.2)
    driver.end(kept)
    assert isinstance(driver.ask("w"), Grant)
    before = driver.books.stored()
    again = retried(before, 5.0)
    assert [effect.attempt.record.trial_id for effect in again] == ["0000"]
    driver.books.commit(again)
    driver.join("w", "2")
    driver.start()
    assert driver.coordinator.count(TrialState.FAILED) == 0
    assert driver.coordinator.work_left
    found = driver.ask("w", "2").attempt
    failed, new = (a.record for a in driver.books.stored() if a.record.trial_id == "0000")
    assert failed == before[0].record
    assert (found.record.trial_id, found.record.attempt, found.lost) == ("0000", 2, 0)
    assert (new.failure, new.error, new.value, new.ended_seq) == (None, None, None, None)
    assert (new.params, new.seed, new.queued_at) == (failed.params, failed.seed, 5.0)


def test_a_trial_lost_too_often_may_be_lost_as_often_again_when_it_is_retried() -> None:
    driver, _ = a_busy_worker(wanted=1)
    for number in range(1, 6):
        driver.join("w", f"first-{number}")
        driver.ask("w", f"first-{number}")
    assert driver.books.latest()["0000"].failure is Failure.PREEMPTED
    driver.books.commit(retried(driver.books.stored(), 5.0))
    driver.start()
    for number in range(5):
        driver.join("w", f"second-{number}")
        assert isinstance(driver.ask("w", f"second-{number}"), Grant)
    driver.join("w", "last")
    assert driver.ask("w", "last") == Stop("done")
    assert driver.books.latest()["0000"].attempt == 10


def test_the_sampler_hears_of_a_retried_trial_when_it_has_ended_anew() -> None:
    driver = Driver(rules(wanted=1), Attentive, a_study())
    driver.join("w")
    driver.end(driver.ask("w"), completed=False)
    driver.books.commit(retried(driver.books.stored(), 5.0))
    driver.start()
    assert isinstance(driver.sampler, Attentive)
    assert driver.sampler.heard == []
    grant = driver.ask("w")
    driver.report(grant, loss=0.5)
    driver.end(grant)
    assert [(r.attempt, r.state) for r in driver.sampler.heard] == [(2, TrialState.COMPLETED)]


# --- what a worker is told ----------------------------------------------------------------


def test_asked_again_a_worker_gets_what_it_holds() -> None:
    driver, grant = a_busy_worker()
    assert driver.ask("w") == grant
    driver.start()
    assert driver.ask("w").attempt.fence == grant.attempt.fence
    driver.do("drain", False)
    assert driver.ask("w").attempt.fence == grant.attempt.fence


def test_who_is_not_known_is_told_so() -> None:
    driver, _ = a_busy_worker()
    for event in ("asked", "left"):
        with pytest.raises(UnknownWorkerError):
            driver.do(event, "nobody", "1")
    driver.join("w", "2")
    with pytest.raises(ReplacedWorkerError):
        driver.ask("w", "1")
    with pytest.raises(ReplacedWorkerError):
        driver.do("beat", "w", "1", 0)


def test_a_heartbeat_tells_who_lost_its_trial() -> None:
    driver, grant = a_busy_worker()
    fence = grant.attempt.fence
    assert driver.do("beat", "w", "1", fence) is Verdict.GO_ON
    assert driver.do("beat", "w", "1", 0) is Verdict.GO_ON
    assert driver.do("beat", "w", "1", fence + 1) is Verdict.LOST


def test_an_end_is_acknowledged_again_and_a_strangers_is_not() -> None:
    driver, grant = a_busy_worker()
    trial_id, fence = grant.attempt.record.trial_id, grant.attempt.fence
    driver.report(grant, loss=0.5)
    for stranger in ((trial_id, 0), (trial_id, fence + 1), ("9999", fence)):
        assert driver.do("ended", *stranger, True) is Verdict.LOST
    before = driver.end(grant), copy.deepcopy(driver.books)
    assert before == (driver.end(grant), driver.books)
    driver.start()
    assert before == (driver.end(grant), driver.books)
    assert driver.do("ended", "9999", fence, True) is Verdict.LOST
    assert driver.report(grant, 2, loss=0.1) is Verdict.STOP


def test_a_result_that_comes_after_the_last_lost_attempt_is_refused() -> None:
    driver, grant = a_busy_worker(wanted=1)
    for number in range(2, 7):
        driver.join("w", str(number))
        grant = driver.ask("w", str(number)) if number < 6 else grant
    before = copy.deepcopy(driver.books)
    assert driver.books.latest()["0000"].failure is Failure.PREEMPTED
    for _ in range(2):
        assert driver.end(grant) is Verdict.LOST
        assert driver.books == before
        driver.start()


def test_a_chief_that_dies_between_a_failure_and_its_end_still_knows_it() -> None:
    for stop in ("explained", "reported"):
        driver, grant = a_busy_worker()
        driver.report(grant, 1, loss=0.5)
        if stop == "explained":
            record = grant.attempt.record
            driver.do("explained", record.trial_id, grant.attempt.fence, Failure.OOM, "no memory")
        else:
            driver.report(grant, 2, loss=float("nan"))
        driver.start()
        assert driver.end(grant, completed=stop == "reported") is Verdict.GO_ON
        record = driver.books.latest()["0000"]
        expected = Failure.OOM if stop == "explained" else Failure.NAN
        assert (record.state, record.failure) == ("FAILED", expected)
        assert record.error in ("no memory", "loss is nan at step 2")
        assert (record.value, record.best_step) == (None, None)


def test_the_next_attempt_knows_nothing_of_why_the_one_before_would_have_failed() -> None:
    driver, grant = a_busy_worker()
    driver.report(grant, 1, loss=0.1)
    driver.do("explained", "0000", grant.attempt.fence, Failure.OOM, "no memory")
    driver.join("w", "2")
    again = driver.ask("w", "2")
    record = again.attempt.record
    assert (record.attempt, record.failure, record.error) == (2, None, None)
    assert (record.value, record.best_step) == (None, None)
    driver.report(again, 1, loss=0.7)
    driver.end(again)
    assert driver.books.latest()["0000"].value == 0.7


def test_a_failure_without_a_reason_is_one_of_the_code() -> None:
    driver, grant = a_busy_worker()
    driver.end(grant, completed=False)
    record = driver.books.latest()["0000"]
    assert (record.failure, record.error) == (Failure.CODE, "the worker did not say why it failed")


# --- leases -------------------------------------------------------------------------------


def test_who_was_heard_of_after_a_long_sleep_has_one_lease_and_no_more() -> None:
    driver, grant = a_busy_worker()
    driver.do("tick")
    driver.clock.now += 1e6
    # Its call is served before the chief looks at the clock again.
    assert driver.report(grant, loss=0.5) is Verdict.GO_ON
    for _ in range(6):
        driver.do("tick")
        driver.clock.now += LEASE_S / 5
    driver.do("tick")
    assert driver.coordinator.workers == []


def test_every_call_about_a_trial_renews_the_lease() -> None:
    driver, grant = a_busy_worker()
    record, fence = grant.attempt.record, grant.attempt.fence
    calls: list[Callable[[], object]] = [
        lambda: driver.ask("w"),
        lambda: driver.report(grant, loss=0.5),
        lambda: driver.do("explained", record.trial_id, fence, Failure.OOM, "no memory"),
        lambda: driver.join("w"),
    ]
    for call in calls * 3:
        for _ in range(3):
            driver.clock.now += LEASE_S / 4
            driver.do("tick")
        call()
    assert driver.coordinator.attempt_under(fence)


# --- the sampler and the end --------------------------------------------------------------


def test_a_search_of_a_small_space_ends_when_it_is_used_up() -> None:
    driver = a_driver(wanted=100)
    driver.join("w")
    while isinstance(grant := driver.ask("w"), Grant):
        driver.report(grant, loss=0.5)
        driver.end(grant)
    assert grant == Stop("done")
    assert driver.coordinator.early_end is EarlyEnd.EXHAUSTED
    assert driver.coordinator.count(TrialState.COMPLETED) == POINTS


class Bracket(RandomSampler):
    """Waits now and then, as a sampler with rungs does."""

    asks = 0

    def ask(self, trial_id: str, pending: Any) -> Any:
        type(self).asks += 1
        return Wait() if self.asks % 3 == 2 else super().ask(trial_id, pending)


def test_a_sampler_that_waits_is_asked_again() -> None:
    driver = Driver(rules(wanted=4), Bracket, a_study())
    driver.join("w")
    waits = 0
    while not isinstance(answer := driver.ask("w"), Stop):
        if isinstance(answer, Grant):
            driver.report(answer, loss=0.5)
            driver.end(answer)
        else:
            waits += 1
            assert waits < 10
            driver.do("tick")
    assert driver.coordinator.count(TrialState.COMPLETED) == 4
    assert len(driver.books.latest()) == 4


class Attentive(RandomSampler):
    """Remembers what it was told."""

    def __init__(self, study: Study, seed: int) -> None:
        super().__init__(study, seed)
        self.heard: list[TrialRecord] = []

    def told(self, record: TrialRecord) -> None:
        self.heard.append(record)


def test_the_sampler_is_told_of_each_end_once_with_its_history() -> None:
    driver = Driver(rules(wanted=2), Attentive, a_study())
    driver.join("w")
    for completed in (True, False):
        grant = driver.ask("w")
        driver.report(grant, 2, loss=0.25)
        driver.report(grant, 1, loss=0.5)
        driver.end(grant, completed)
        driver.end(grant, completed)
    assert isinstance(driver.sampler, Attentive)
    first, second = driver.sampler.heard
    assert (first.state, first.value, second.state) == ("COMPLETED", 0.25, "FAILED")
    assert first.history == (Report(1, {"loss": 0.5}), Report(2, {"loss": 0.25}))
    assert first == driver.books.latest()["0000"]


def test_points_for_all_who_wait_are_asked_for_one_after_the_other() -> None:
    driver = a_driver()
    driver.slow = True
    for name in ("a", "b", "c"):
        driver.join(name)
        driver.ask(name)
    for number in range(3):
        assert driver.asked == [f"{number:04d}"]
        driver.think()
    assert driver.asked == []
    assert [record.state for record in driver.coordinator.pending] == ["WAITING"] * 3


def test_an_answer_that_nobody_asked_for_is_dropped() -> None:
    driver, _ = a_busy_worker()
    before = copy.deepcopy(driver.books)
    driver.do("proposed", "0007", Proposal({"kind": "a", "flag": True}), "i")
    assert driver.books == before


def test_a_record_says_where_its_point_came_from() -> None:
    driver = a_driver()
    driver.slow = True
    driver.join("w")
    assert isinstance(driver.ask("w"), Later)
    driver.asked.clear()
    driver.do("proposed", "0000", Proposal({"kind": "a"}, tag={"rung": 1}, epochs=3), "mine 2")
    record = driver.ask("w").attempt.record
    assert (record.params, record.tag, record.epochs) == ({"kind": "a"}, {"rung": 1}, 3)
    assert (record.sampler, record.sampler_impl) == ("sampler", "mine 2")
    assert record.seed == seed_of(1, "0000")
    assert (record.worker, record.device) == ("w", "cpu")
    assert record.queued_at == record.started_at == driver.clock.wall()


def test_a_search_that_is_drained_asks_for_nothing_more() -> None:
    driver = a_driver(wanted=9)
    driver.slow = True
    for name in ("a", "b", "c"):
        driver.join(name)
        assert isinstance(driver.ask(name), Later)
    driver.do("drain", False)
    driver.think()
    driver.do("tick")
    assert driver.asked == []
    assert len(driver.books.latest()) == 1
    assert driver.ask("a") == Stop("drained")


def test_a_search_that_is_drained_is_over_once_nothing_runs() -> None:
    driver, grant = a_busy_worker()
    driver.do("drain", False)
    assert not driver.coordinator.over
    driver.report(grant, loss=0.5)
    driver.end(grant)
    assert driver.coordinator.over and driver.coordinator.work_left
    assert driver.ask("w") == Stop("drained")


def test_a_search_that_is_stopped_at_once_takes_back_what_runs() -> None:
    driver, grant = a_busy_worker()
    driver.do("drain", True)
    assert driver.coordinator.over
    assert driver.report(grant, loss=0.5) is Verdict.LOST
    assert driver.do("beat", "w", "1", grant.attempt.fence) is Verdict.LOST
    lost, waiting = driver.books.stored()
    assert (lost.record.failure, waiting.record.state) == (Failure.PREEMPTED, "WAITING")
    assert waiting.lost == 0


def test_a_search_without_a_best_trial_has_none() -> None:
    driver, grant = a_busy_worker(wanted=1)
    assert driver.coordinator.best is None
    driver.report(grant, loss=0.1)
    driver.end(grant, completed=False)
    assert driver.coordinator.best is None
    assert driver.coordinator.count(TrialState.FAILED) == 1
    assert driver.ask("w") == Stop("done")
