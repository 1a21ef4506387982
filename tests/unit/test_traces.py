"""What a ledger's records say of when a search did what."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from hpo.benchmark.recording import seconds_of
from hpo.benchmark.trace import trace_of
from hpo.protocol import WorkerInfo, WorkerRow
from hpo.trial import Direction, Failure, Report, TrialRecord, TrialState
from tests.support.ledger_fixtures import a_record


def attempt(trial: str, worker: str, begun: float, ended: float, **more: Any) -> TrialRecord:
    """An attempt that completed, unless ``more`` says otherwise."""
    fields = {
        "trial_id": trial,
        "worker": worker,
        "queued_at": 100.0,
        "started_at": begun,
        "ended_at": ended,
        "state": TrialState.COMPLETED,
        "failure": None,
        "value": 0.5,
        "ended_seq": int(ended),
        **more,
    }
    return dataclasses.replace(a_record(), **fields)


def row(worker: str, joined: float, left: float | None, incarnation: str = "1") -> WorkerRow:
    return WorkerRow(WorkerInfo(worker, incarnation, "host", 1, "cpu"), joined, left)


def test_node_seconds_are_those_of_nodes_that_were_there() -> None:
    records = [attempt("0000", "a", 110.0, 130.0), attempt("0001", "b", 120.0, 150.0, value=0.25)]
    # Worker b is still there long after the last trial has ended.
    trace = trace_of(records, [row("a", 105.0, 140.0), row("b", 115.0, 900.0)], 100.0)
    assert (trace.makespan_s, trace.present_s, trace.busy_s) == (50.0, 35.0 + 35.0, 20.0 + 30.0)
    assert [(end.trial_id, end.at_s, end.node_s) for end in trace.ends] == [
        ("0000", 30.0, 25.0 + 15.0),
        ("0001", 50.0, 70.0),
    ]
    assert trace.best(Direction.MIN) == [0.5, 0.25]
    assert trace.best(Direction.MAX) == [0.5, 0.5]
    assert sum(trace.busy) / len(trace.busy) < 1.0 and max(trace.busy) == 1.0


def test_a_lost_attempt_ended_with_its_worker_and_not_when_that_was_noticed() -> None:
    lost = {"state": TrialState.FAILED, "failure": Failure.PREEMPTED, "ended_seq": None}
    records = [
        attempt("0000", "a", 110.0, 160.0, value=None, **lost),
        attempt("0000", "a", 170.0, 190.0, attempt=2),
    ]
    workers = [row("a", 110.0, 120.0), row("a", 165.0, None, "2")]
    trace = trace_of(records, workers, 100.0)
    assert (trace.lost_s, trace.busy_s, trace.present_s) == (10.0, 30.0, 35.0)
    assert trace.failures == {"PREEMPTED": 1} and len(trace.ends) == 1


def test_what_never_began_leaves_no_trace() -> None:
    waiting = attempt("0000", "a", 1.0, 2.0, state=TrialState.WAITING)
    waiting = dataclasses.replace(waiting, started_at=None, ended_at=None, ended_seq=None)
    trace = trace_of([waiting], [], 100.0)
    assert (trace.ends, trace.makespan_s, trace.present_s) == ((), 0.0, 0.0)


def test_a_steps_seconds_are_those_of_the_attempt_that_trained_it() -> None:
    def told(*losses: float) -> tuple[Report, ...]:
        return tuple(Report(step, {"loss": loss}) for step, loss in enumerate(losses, start=1))

    first = attempt("0000", "a", 100.0, 140.0, history=told(0.9, 0.8))
    # It took over both steps when it began, and trained one more.
    second = attempt("0000", "a", 200.0, 230.0, history=told(0.9, 0.8, 0.7), attempt=2)
    times = [{1: 112.0, 2: 120.0}, {1: 204.0, 2: 204.0, 3: 211.0}]
    assert seconds_of([first, second], times) == pytest.approx({1: 12.0, 2: 8.0, 3: 7.0})
    # From before steps had times nothing is known.
    assert seconds_of([first], [{}]) == {}
