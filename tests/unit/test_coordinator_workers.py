"""The coordinator: more or fewer workers, retried trials, what a worker is told, leases."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest

from hpo.attempts import retried
from hpo.crew import Crew, worker_ids
from hpo.leases import ReplacedWorkerError, UnknownWorkerError
from hpo.protocol import (
    Grant,
    Later,
    Stop,
    Verdict,
)
from hpo.trial import Failure, TrialState
from tests.support.coordinator_driver import (
    LEASE_S,
    Driver,
    a_busy_worker,
    a_driver,
    a_study,
    rules,
)
from tests.support.recording_sampler import Attentive


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


# --- who gets a point, and how soon ---------------------------------------------------------


def test_points_are_kept_ready_for_a_crowd_and_not_for_a_few() -> None:
    few, many = a_driver(wanted=1000, ahead=True), a_driver(wanted=1000, ahead=True)
    for driver, workers in ((few, 3), (many, 4)):
        for number in range(workers):
            driver.join(f"w{number}")
            assert isinstance(driver.ask(f"w{number}"), Grant)
    assert len(few.coordinator.pending) == 3
    assert len(many.coordinator.pending) == 4 + 1


def test_as_many_are_woken_as_there_are_trials() -> None:
    driver = a_driver(wanted=100)
    for number in range(10):
        driver.join(f"w{number}")
    assert isinstance(driver.ask("w0"), Grant)
    assert driver.coordinator.worth_asking == 0
    driver.coordinator.left("w0", "1")
    assert driver.coordinator.worth_asking == 1, "it was put back"
    driver.coordinator.drain(immediate=False)
    assert driver.coordinator.worth_asking is None, "all are to hear that it is over"
