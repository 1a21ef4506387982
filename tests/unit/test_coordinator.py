"""The coordinator's rules: a trial's value, its attempts, who waits for what."""

from __future__ import annotations

import dataclasses

import pytest

from hpo.leases import UnknownWorkerError
from hpo.protocol import (
    Grant,
    Later,
    Stop,
    Verdict,
)
from hpo.trial import Direction, Failure, TrialState
from tests.support.coordinator_driver import (
    LEASE_S,
    a_busy_worker,
    a_driver,
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


def test_losses_that_brought_a_trial_on_are_not_counted() -> None:
    driver = a_driver(wanted=1)
    number = 0

    def live(step: int) -> None:
        """One more worker goes on from ``step``, and dies."""
        nonlocal number
        number += 1
        driver.join("w", str(number))
        attempt = driver.ask("w", str(number)).attempt
        assert attempt.record.attempt == number
        if step:
            verdict = driver.do("resumed", attempt.record.trial_id, attempt.fence, step)
            assert verdict is Verdict.GO_ON

    for step in (0, 0, 1, 2, 3, 4, 5, 6):
        live(step)
    # A chief that comes back does not know how far that was, and lets it pass once.
    driver.start()
    for step in (6, 6, 6, 6, 6):
        live(step)
    driver.join("w", "last")
    assert isinstance(driver.ask("w", "last"), Stop)
    record = driver.books.latest()["0000"]
    assert (record.state, record.failure) == ("FAILED", Failure.PREEMPTED)
    assert "5 attempts were lost in this way" in (record.error or "")


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
