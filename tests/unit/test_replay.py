"""Searches under a virtual clock: the real rules and samplers, nodes and training made up."""

from __future__ import annotations

import collections
import dataclasses
import statistics
import types
from typing import Any

import numpy as np
import pytest

from hpo.benchmark import replay
from hpo.benchmark.matrix import Cell
from hpo.benchmark.nodes import Draw, Nodes
from hpo.benchmark.replay import Replay, VirtualClock
from hpo.benchmark.simulate import Budget, simulate
from hpo.benchmark.table import Table
from hpo.benchmark.trace import Trace
from hpo.errors import UsageError
from hpo.protocol import Rules
from hpo.pruners import NoPruner
from hpo.registry import SAMPLERS, owner_of
from hpo.samplers.base import Proposal
from hpo.samplers.random import RandomSampler
from hpo.trial import Direction, Params, TrialRecord, TrialState
from tests.conformance.test_samplers import each
from tests.support import surrogate_tables as tables

# A replay that comes out the same every time, whatever else the machine does.
STATED = Nodes(call_s=0.0, suggestion_s=0.0)


def replayed(
    table: Table,
    sampler: str = "random",
    trials: int = 20,
    workers: int = 4,
    seed: int = 1,
    pruner: str = "none",
    nodes: Nodes = STATED,
    **budget: Any,
) -> Trace:
    cell = Cell(owner_of(sampler) or "keras-tuner", sampler, pruner, workers, seed)
    return simulate(table, cell, Budget(trials, **budget), nodes)


def rows_of(trace: Trace, table: Table) -> list[int]:
    """The row of each trial that ended, in the order of the ends."""
    return [table.configurations.index(end.params) for end in trace.ends]


@each(SAMPLERS)
def test_every_sampler_searches_a_table_and_tries_no_row_twice(name: str) -> None:
    # Ray's and Optuna's own grids have no conditions.
    space = tables.SPACE if name.endswith(":grid") else tables.CONDITIONAL
    table = dataclasses.replace(
        tables.made_up(24, space=space, steps=9),
        grid={"rate": [1e-4, 1e-2, 1.0], "momentum": [0.0, 0.3, 0.6, 1.0]},
    )
    trace = replayed(table, name, trials=16)
    rows = rows_of(trace, table)
    assert len(rows) >= 16
    if name == "kt-hyperband":
        # A promotion is a trial of its own at the same point.
        assert max(collections.Counter(rows).values()) > 1
        return
    assert len(set(rows)) == len(rows) == 16
    for end, row in zip(trace.ends, rows, strict=True):
        assert end.value in table.values()[row]
        assert end.state == TrialState.COMPLETED


@each(["tpe", "bayesian", "cmaes", "kt-bayesian", "ray:optuna"])
def test_a_model_is_told_of_the_rows_and_finds_the_bowl(name: str) -> None:
    """It learns from what it is told of the rows that stood for its points, and from no other."""
    table = tables.made_up(300, steps=1, seed=3)
    depth = table.values()[:, 0]
    late = []
    # KerasTuner's Gaussian process takes half a second for each point.
    for seed in range(1 if name == "kt-bayesian" else 3):
        rows = rows_of(replayed(table, name, 30, 1, seed), table)
        late += [depth[row] for row in rows[20:]]
    assert statistics.mean(late) < 0.5 * depth.mean()


@pytest.mark.parametrize("name", ["random", "tpe", "grid"])
def test_the_same_replay_comes_out_the_same(name: str) -> None:
    nodes = dataclasses.replace(
        STATED,
        start_s=Draw.parse("exp:20"),
        speed=Draw.parse("lognormal:1,0.3"),
        preempted_after_s=Draw.parse("exp:120"),
        checkpoint_s=10.0,
    )
    table = tables.made_up(noise=0.1, space=tables.SPACE)
    table = dataclasses.replace(table, grid={"rate": [1e-4, 1.0], "momentum": [0.0, 0.5, 1.0]})
    assert replayed(table, name, 6, nodes=nodes) == replayed(table, name, 6, nodes=nodes)


def test_searches_of_one_seed_meet_the_same_curves_and_begin_alike() -> None:
    table = tables.made_up(noise=1.0, seeds=5)
    one, other = (replayed(table, name, shared=5) for name in ("random", "tpe"))
    # Four nodes: the first four begin at once, whoever proposes the rest.
    assert {e.trial_id: e.params for e in one.ends[:4]} == {
        e.trial_id: e.params for e in other.ends[:4]
    }
    values = {str(end.params): end.value for end in one.ends}
    common = [end for end in other.ends if str(end.params) in values]
    assert len(common) >= 5
    assert all(values[str(end.params)] == end.value for end in common)
    another = replayed(table, "random", seed=2, trials=60)
    assert any(values.get(str(end.params), end.value) != end.value for end in another.ends)


def test_the_clock_is_what_training_takes() -> None:
    # 20 trials of 4 steps of 10 s on 4 nodes, and a second besides for each.
    table = tables.made_up()
    table = dataclasses.replace(table, overhead=np.full((60, 2), 1.0))
    trace = replayed(table)
    assert trace.makespan_s == pytest.approx(5 * 41)
    assert trace.present_s == trace.busy_s == pytest.approx(20 * 41)
    assert trace.lost_s == 0
    assert trace.busy == pytest.approx([1.0] * len(trace.busy))
    twice = replayed(table, nodes=dataclasses.replace(STATED, speed=Draw.parse("2")))
    assert twice.makespan_s == pytest.approx(trace.makespan_s / 2)
    late = replayed(table, nodes=dataclasses.replace(STATED, start_s=Draw.parse("7")))
    assert late.makespan_s == pytest.approx(trace.makespan_s + 7)


def test_a_table_without_seconds_counts_steps() -> None:
    assert replayed(tables.made_up(seconds=None)).makespan_s == pytest.approx(5 * 4)


class Slow(RandomSampler):
    """Thinks for 20 ms of the time that it is given."""

    ignores_results = False
    time = VirtualClock()

    @property
    def thinks_elsewhere(self) -> bool:
        # Who waits uses no processor.
        return True

    def ask(self, trial_id: str, pending: Any) -> Any:
        self.time.now += 0.02
        return super().ask(trial_id, pending)


def test_suggestions_are_charged_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    # 40 ms of training on 16 nodes: it is the sampler that everybody waits for.
    table = tables.made_up(200, seconds=0.01)
    study = table.study()
    rules = Rules(50, "loss", Direction.MIN, 1, "keras-tuner", "slow", study.digest)
    pruner = NoPruner(Direction.MIN, 4, 1)
    clocks = types.SimpleNamespace(perf_counter=Slow.time.monotonic, thread_time=lambda: 0.0)
    monkeypatch.setattr(replay, "time", clocks)
    trace = Replay(table, Slow(study, 1), pruner, rules, 16, Nodes(call_s=0.0)).run()
    assert trace.suggesting_s == pytest.approx(50 * 0.02)
    assert trace.makespan_s >= trace.suggesting_s
    assert trace.busy_s / trace.present_s < 0.3


def test_a_call_costs_the_chief_what_is_stated() -> None:
    nodes = dataclasses.replace(STATED, call_s=1.0)
    table = tables.made_up(seconds=0.01)
    # Each trial has five calls that come one after the other, however many nodes there are.
    assert replayed(table, nodes=nodes, workers=20).makespan_s > 20 * 5 * 0.9


def test_lost_nodes_cost_time_and_nothing_else() -> None:
    nodes = dataclasses.replace(
        STATED,
        preempted_after_s=Draw.parse("exp:100"),
        start_s=Draw.parse("const:5"),
        checkpoint_s=1e9,
    )
    table = tables.made_up()
    trace = replayed(table, nodes=nodes, workers=8)
    assert trace.failures["PREEMPTED"] > 3
    assert len(trace.ends) == 20 and len(set(rows_of(trace, table))) == 20
    assert trace.attempts == 20 + trace.failures["PREEMPTED"]
    assert 0 < trace.lost_s < trace.busy_s <= trace.present_s
    saved = replayed(table, nodes=dataclasses.replace(nodes, checkpoint_s=1.0), workers=8)
    assert saved.makespan_s < trace.makespan_s


def test_curves_that_diverge_fail_as_they_would() -> None:
    table = tables.made_up(20, noise=0.1)
    table.diverged[:7], table.lengths[:7] = True, 2
    trace = replayed(table)
    failed = [end for end in trace.ends if end.state == TrialState.FAILED]
    assert sorted(rows_of(trace, table)) == list(range(20))
    assert {table.configurations.index(end.params) for end in failed} == set(range(7))
    assert trace.failures == {"NAN": 7}


@pytest.mark.parametrize("direction", list(Direction))
def test_the_best_is_the_best_of_all_rows(direction: Direction) -> None:
    table = tables.made_up(30, direction=direction, noise=0.1)
    trace = replayed(table, trials=30)
    best = trace.best(direction)[-1]
    drawn = table.values()[np.arange(30), table.drawn(1)]
    assert best == (drawn.min() if direction is Direction.MIN else drawn.max())


def test_pruners_save_time() -> None:
    table = tables.made_up(60, steps=9)
    whole, pruned = (replayed(table, pruner=name) for name in ("none", "asha"))
    assert pruned.makespan_s < 0.7 * whole.makespan_s
    assert {end.state for end in pruned.ends} == {TrialState.PRUNED, TrialState.COMPLETED}


def test_a_budget_in_node_seconds_ends_the_search() -> None:
    trace = replayed(tables.made_up(), trials=None, node_seconds=800.0)
    assert "trials ran for" in trace.early_end
    assert trace.present_s == pytest.approx(800, abs=4 * 5 + 1)


def test_a_table_that_is_used_up_ends_the_search() -> None:
    table = tables.made_up(10)
    trace = replayed(table, trials=50)
    assert sorted(rows_of(trace, table)) == list(range(10))
    assert trace.early_end == "the sampler has no more points"


def test_a_trace_comes_back_from_json() -> None:
    trace = replayed(tables.made_up())
    assert Trace.from_json(trace.to_json()) == trace


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lognorm:1,2", "did you mean 'lognormal'"),
        ("exp:x", "is no distribution: give exp:MEAN"),
        ("uniform:1", "give uniform:LOW,HIGH"),
        ("const:-1", "with numbers from 0"),
    ],
)
def test_a_distribution_that_is_none_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Draw.parse(text)


def test_a_thousand_workers_are_no_trouble() -> None:
    """How long that takes is measured by benchmarks/replay_scale.py."""
    trace = replayed(tables.made_up(2500), trials=2000, workers=1000, nodes=Nodes())
    assert len(trace.ends) == 2000


class Told(RandomSampler):
    """Notes what it proposed and what it was told."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.proposed: dict[str, Params] = {}
        self.became: dict[str, Params] = {}
        self.ended: dict[str, TrialRecord] = {}

    def ask(self, trial_id: str, pending: Any) -> Any:
        answer = super().ask(trial_id, pending)
        if isinstance(answer, Proposal):
            self.proposed[trial_id] = answer.params
        return answer

    def moved(self, trial_id: str, proposed: Params, params: Params) -> None:
        assert self.proposed[trial_id] == proposed
        self.became[trial_id] = params
        super().moved(trial_id, proposed, params)

    def told(self, record: TrialRecord) -> None:
        self.ended[record.trial_id] = record


def test_a_sampler_is_told_the_parameters_of_the_row() -> None:
    table = tables.made_up()
    study = table.study()
    rules = Rules(20, "loss", Direction.MIN, 1, "keras-tuner", "told", study.digest)
    sampler = Told(study, 1)
    Replay(table, sampler, NoPruner(Direction.MIN, 4, 1), rules, 4, STATED).run()
    assert len(sampler.ended) == 20
    for trial_id, record in sampler.ended.items():
        assert record.params == sampler.became[trial_id] != sampler.proposed[trial_id]
        assert record.params in table.configurations
        assert len(record.history) == 4
