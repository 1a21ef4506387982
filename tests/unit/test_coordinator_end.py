"""The coordinator: what passes between it and the sampler, and how a search ends."""

from __future__ import annotations

import copy
from typing import Any

from hpo.protocol import (
    EarlyEnd,
    Grant,
    Later,
    Stop,
    Verdict,
)
from hpo.samplers.base import Proposal, Wait, seed_of
from hpo.samplers.random import RandomSampler
from hpo.trial import Failure, Report, TrialState
from tests.support.coordinator_driver import (
    POINTS,
    Driver,
    a_busy_worker,
    a_driver,
    a_study,
    rules,
)
from tests.support.recording_sampler import Attentive


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
