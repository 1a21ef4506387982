"""Each kind of failure has a policy of its own; budgets end a search."""

from __future__ import annotations

from typing import Any

import pytest

from hpo import memory
from hpo.failures import RepeatedErrors, headline
from hpo.protocol import (
    EarlyEnd,
    Grant,
    Later,
    Spent,
    Stop,
    StoreEarlyEnd,
    StoreSpent,
    Verdict,
    WorkerInfo,
)
from hpo.trial import Failure, TrialState
from tests.support.coordinator_driver import Driver, a_driver


def fails(driver: Driver, worker: str, failure: Failure, error: str = "why") -> None:
    """The worker's next trial fails."""
    grant = driver.ask(worker)
    assert isinstance(grant, Grant), grant
    record = grant.attempt.record
    driver.do("explained", record.trial_id, grant.attempt.fence, failure, error)
    assert driver.end(grant, completed=False) is Verdict.GO_ON


def ends(driver: Driver, trial_id: str) -> list[tuple[str, Any]]:
    """How each attempt at a trial stands."""
    stored = [a.record for a in driver.books.stored() if a.record.trial_id == trial_id]
    return [(record.state.value, record.failure) for record in stored]


@pytest.mark.parametrize(
    ("failure", "attempts"),
    [(Failure.CODE, 2), (Failure.OOM, 3), (Failure.NAN, 1), (Failure.TIMEOUT, 1)],
)
def test_each_kind_is_tried_again_as_often_as_its_rule_says(
    failure: Failure, attempts: int
) -> None:
    driver = a_driver(wanted=1, code_retries=1, oom_retries=2)
    driver.join("w")
    for number in range(attempts):
        assert len(ends(driver, "0000")) == max(number, 0) + (number > 0)
        fails(driver, "w", failure)
        driver.start()
    assert ends(driver, "0000") == [("FAILED", failure)] * attempts
    assert driver.ask("w") == Stop("done")


def test_retries_of_one_kind_do_not_use_up_those_of_another() -> None:
    driver = a_driver(wanted=1, code_retries=1, oom_retries=1)
    driver.join("w")
    for failure in (Failure.CODE, Failure.OOM):
        fails(driver, "w", failure)
    driver.join("w", "2")
    grant = driver.ask("w", "2")
    driver.join("w", "3")
    grant = driver.ask("w", "3")
    driver.report(grant, loss=0.5)
    driver.end(grant)
    assert ends(driver, "0000") == [
        ("FAILED", Failure.CODE),
        ("FAILED", Failure.OOM),
        ("FAILED", Failure.PREEMPTED),
        ("COMPLETED", None),
    ]


def test_what_ran_out_of_memory_waits_for_its_host_and_keeps_it() -> None:
    driver = a_driver(wanted=6, oom_retries=1)
    for name in ("one", "two", "worker-2"):
        driver.join(name)
    beside = driver.ask("two")
    fails(driver, "one", Failure.OOM)
    assert isinstance(driver.ask("one"), Later), "its neighbour still runs"
    assert isinstance(driver.ask("worker-2"), Grant), "another host has nothing to do with it"
    driver.report(beside, loss=0.5)
    driver.end(beside)
    again = driver.ask("two")
    assert (again.attempt.record.trial_id, again.attempt.record.attempt) == ("0001", 2)
    assert isinstance(driver.ask("one"), Later), "it is alone"
    driver.report(again, loss=0.5)
    driver.end(again)
    assert isinstance(driver.ask("one"), Grant)


def test_a_gpu_is_a_place_of_its_own() -> None:
    driver = a_driver(wanted=6, oom_retries=1)
    for name, device in (("a", "gpu:0"), ("b", "gpu:0"), ("c", "gpu:1")):
        driver.do("joined", WorkerInfo(name, "1", "host", 1, device))
    neighbour = driver.ask("b")
    fails(driver, "a", Failure.OOM)
    assert isinstance(driver.ask("c"), Grant)
    assert isinstance(driver.ask("a"), Later)
    driver.report(neighbour, loss=0.5)
    driver.end(neighbour)
    assert driver.ask("a").attempt.record.attempt == 2


def test_what_ran_out_of_memory_goes_elsewhere_when_its_host_is_gone() -> None:
    driver = a_driver(wanted=2, oom_retries=1)
    driver.join("one")
    fails(driver, "one", Failure.OOM)
    driver.do("left", "one", "1")
    driver.join("worker-2")
    assert driver.ask("worker-2").attempt.record.attempt == 2


def test_the_same_error_in_three_trials_ends_the_search() -> None:
    driver = a_driver(wanted=9, code_retries=1)
    driver.join("w")
    driver.join("v")
    beside = driver.ask("v")
    for number in range(5):
        text = f"Traceback (most recent call last):\n  at 0x7f{number}\nKeyError: 'a{number}'"
        assert driver.coordinator.early_end is None
        fails(driver, "w", Failure.CODE, text)
    assert driver.coordinator.early_end is EarlyEnd.ERROR
    assert driver.report(beside, loss=0.5) is Verdict.LOST
    assert driver.ask("w") == Stop("drained")
    assert driver.coordinator.over


def test_other_errors_do_not_end_the_search() -> None:
    driver = a_driver(wanted=4, same_error=3)
    driver.join("w")
    for error in ("KeyError: 'a'", "ValueError: 1", "KeyError: 'b'", "OSError: 3"):
        fails(driver, "w", Failure.CODE, error)
    assert driver.coordinator.early_end is None
    assert driver.ask("w") == Stop("done")


def test_errors_are_the_same_but_for_numbers_names_and_addresses() -> None:
    errors = RepeatedErrors(limit=2)
    assert not errors.noted("0000", "ValueError: shape (3, 4) of 'x' at 0x7fab")
    assert not errors.noted("0000", "ValueError: shape (3, 4) of 'x' at 0x7fab")
    assert not errors.noted("0001", "ValueError: size of 'x' at 0x7fab")
    assert errors.noted("0002", "ValueError: shape (5, 6) of 'long name' at 0x1")


def test_the_headline_of_a_traceback_is_its_last_exception() -> None:
    text = (
        "Traceback (most recent call last):\n  one\nKeyError: 'a'\n\nDuring handling ...\n\n"
        "Traceback (most recent call last):\n  two\nValueError: b\nc\n"
    )
    assert headline(text) == "ValueError: b"
    assert headline("first\nsecond") == "first"
    assert headline(None) == headline("") == ""


def test_a_trial_beyond_its_time_is_ended_and_its_worker_told() -> None:
    driver = a_driver(wanted=2, trial_timeout_s=60.0)
    driver.join("w")
    grant = driver.ask("w")
    for _ in range(12):
        driver.clock.now += 5.0
        driver.do("tick")
        assert driver.do("beat", "w", "1", grant.attempt.fence) is Verdict.GO_ON
    driver.clock.now += 5.0
    driver.do("tick")
    assert driver.do("beat", "w", "1", grant.attempt.fence) is Verdict.LOST
    # The worker that ended it by itself at the same moment is acknowledged.
    assert driver.end(grant) is Verdict.GO_ON
    assert ends(driver, "0000") == [("FAILED", Failure.TIMEOUT)]
    assert driver.ask("w").attempt.record.trial_id == "0001"


def test_hours_count_only_while_trials_run_and_survive_the_chief() -> None:
    driver = a_driver(wanted=9, max_hours=0.01)
    driver.join("w")
    spent: list[Spent] = []

    def pass_time(seconds: int) -> None:
        for _ in range(seconds):
            driver.clock.now += 1.0
            driver.coordinator.tick()
            spent.extend(e.spent for e in driver.coordinator.outbox if isinstance(e, StoreSpent))
            driver.settle()
            for info in driver.coordinator.workers:
                driver.do("beat", info.worker_id, info.incarnation, 0)

    pass_time(100)
    assert spent == []
    grant = driver.ask("w")
    pass_time(20)
    driver.report(grant, loss=0.5)
    driver.end(grant)
    pass_time(100)
    assert spent[-1].running_s == 20.0
    driver.ask("w")
    pass_time(15)
    assert driver.coordinator.early_end is None
    pass_time(1)
    assert driver.coordinator.early_end is EarlyEnd.BUDGET
    assert driver.coordinator.over
    assert ends(driver, "0001") == [("FAILED", Failure.PREEMPTED), ("WAITING", None)]
    assert spent[-1].running_s == 36.0


def test_gpu_hours_count_each_gpu() -> None:
    driver = a_driver(wanted=9, max_gpu_hours=0.01)
    driver.do("joined", WorkerInfo("a", "1", "host", 1, "gpu:0,gpu:1"))
    driver.do("joined", WorkerInfo("b", "1", "host", 1, "cpu:0"))
    driver.ask("a"), driver.ask("b")
    for _ in range(17):
        driver.clock.now += 1.0
        driver.do("tick")
    assert driver.coordinator.early_end is None
    driver.clock.now += 1.0
    driver.coordinator.tick()
    (said,) = [e for e in driver.coordinator.outbox if isinstance(e, StoreEarlyEnd)]
    assert "0.01 GPU-hours" in said.words


def test_a_budget_that_ends_with_the_last_trial_ends_nothing() -> None:
    driver = a_driver(wanted=1, max_hours=0.001)
    driver.join("w")
    grant = driver.ask("w")
    driver.clock.now += 3.0
    driver.do("tick")
    driver.report(grant, loss=0.5)
    driver.end(grant)
    driver.clock.now += 5.0
    driver.do("tick")
    assert driver.coordinator.early_end is None
    assert driver.coordinator.count(TrialState.COMPLETED) == 1


def test_a_search_that_nobody_works_for_ends_and_says_so() -> None:
    driver = a_driver(wanted=4, without_workers_s=600.0)
    driver.join("w")
    driver.ask("w")
    for _ in range(60):
        driver.clock.now += 5.0
        driver.do("tick")
        driver.do("beat", "w", "1", 1)
    driver.do("left", "w", "1")
    for _ in range(120):
        driver.clock.now += 5.0
        driver.do("tick")
        assert driver.coordinator.early_end is None
    driver.clock.now += 5.0
    driver.do("tick")
    assert driver.coordinator.early_end is EarlyEnd.NO_WORKERS
    assert driver.coordinator.over
    assert driver.coordinator.work_left
    assert "no worker was there for 605 s" in driver.coordinator.early_words


class ResourceExhaustedError(Exception):
    """Named as TensorFlow's is."""


def test_memory_that_ran_out_is_told_from_other_errors() -> None:
    assert memory.ran_out(MemoryError())
    assert memory.ran_out(ResourceExhaustedError("OOM when allocating"))
    assert memory.ran_out(RuntimeError("RESOURCE_EXHAUSTED: out of memory on gpu:0"))
    assert not memory.ran_out(ValueError("memory is fine"))
    with pytest.raises(ValueError, match="wrapped") as caught:
        raise ValueError("wrapped") from MemoryError()
    assert memory.ran_out(caught.value)
