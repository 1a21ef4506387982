"""The statistics tell the truth: what is known beforehand is found, and nothing else."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from hpo.benchmark import compare
from hpo.benchmark.analysis import Result, analyse, leaders
from hpo.benchmark.matrix import Cell
from hpo.benchmark.regret import (
    FLOOR,
    Scale,
    at_fraction,
    curve,
    log_regret,
    places,
    scale_of_table,
)
from hpo.benchmark.trace import End, Trace
from hpo.benchmark.winner import bias_in_table, judged, leading
from hpo.samplers.random import RandomSampler
from hpo.trial import Direction
from tests.support import surrogate_tables as tables
from tests.support.guided_search import Better, Guided, searched

REPETITIONS = 200


def a_trace(*values: float | None, at: float = 10.0) -> Trace:
    """Trials that end one after the other on one node, with these values."""
    ends = []
    for number, value in enumerate(values):
        state = "FAILED" if value is None else "COMPLETED"
        when = at * (number + 1)
        ends.append(End(f"{number:04d}", when, when, state, value, {"x": number}))
    total = at * len(values)
    return Trace(tuple(ends), total, total, total, 0.0, None, len(ends), {}, ())


@pytest.mark.parametrize("direction", list(Direction))
def test_regret_is_zero_at_the_best_and_one_at_the_median(direction: Direction) -> None:
    sign = 1 if direction is Direction.MIN else -1
    values = sign * np.array([1.0, 2.0, 3.0, 10.0, 100.0, math.nan])
    scale = Scale.of(values, direction)
    assert scale.regret([sign * 1.0, sign * 3.0, sign * 2.0]).tolist() == [0.0, 1.0, 0.5]
    # The worst is far away, and moves nothing.
    assert Scale.of(values * [1, 1, 1, 1, 1e6, 1], direction).regret([sign * 2.0])[0] == 0.5
    assert scale.regret([math.nan])[0] == 1.0
    assert scale.value(0.25) == sign * 1.5
    assert log_regret(np.array([0.0, FLOOR / 2]))[1] == pytest.approx(math.log10(FLOOR))


def test_a_space_of_equals_has_no_regret() -> None:
    scale = Scale.of([2.0, 2.0, 2.0], Direction.MIN)
    assert scale.regret([2.0, 3.0, math.nan]).tolist() == [0.0, 1.0, 1.0]
    assert Scale.of([math.nan], Direction.MIN).regret([math.nan])[0] == 1.0


def test_the_incumbent_is_the_best_that_completed_so_far() -> None:
    trace = a_trace(5.0, None, 3.0, 4.0)
    scale = Scale(1.0, 5.0, Direction.MIN)
    at = np.array([0.0, 0.5, 1.0, 2.0, 2.9, 3.0, 9.0])
    assert curve(trace, scale, "trials", at).tolist() == [1, 1, 1, 1, 1, 0.5, 0.5]
    assert curve(trace, scale, "at_s", np.array([29.0, 30.0])).tolist() == [1.0, 0.5]
    assert at_fraction(trace, scale, "trials", 4, 0.5) == 1.0
    assert at_fraction(trace, scale, "node_s", 40, 1.0) == 0.5
    pruned = End("0009", 50.0, 50.0, "PRUNED", 0.0, {})
    with_pruned = Trace(**{**vars(trace), "ends": (*trace.ends, pruned)})
    assert curve(with_pruned, scale, "trials", np.array([5.0]))[0] == 0.5


def test_an_axis_ends_where_most_searches_have_and_says_how_many_go_on() -> None:
    slow = [a_trace(0.1, 0.2, at=at) for at in (40.0, 41.0, 42.0, 43.0, 3000.0)]
    fast = [a_trace(0.1, 0.2, at=at) for at in (10.0, 11.0, 12.0, 13.0, 14.0)]
    at, beyond = places([fast, slow], "at_s")
    assert (at[0], at[-1], beyond) == (0.0, 86.0, 1)
    assert places([fast, slow], "trials")[1] == 0
    assert places([[a_trace()]], "at_s")[1] == 0


def test_wilcoxon_is_exact_for_few_seeds() -> None:
    differences = np.array([0.3, -0.1, 0.8, 0.5, 0.2, 0.9])
    ranks = np.argsort(np.argsort(np.abs(differences))) + 1
    seen = ranks[differences > 0].sum()
    sums = [
        sum(rank for rank, sign in zip(ranks, signs, strict=True) if sign)
        for signs in itertools.product((0, 1), repeat=6)
    ]
    middle = ranks.sum() / 2
    expected = np.mean([abs(s - middle) >= abs(seen - middle) for s in sums])
    assert compare.wilcoxon(differences) == pytest.approx(expected)
    assert compare.wilcoxon(np.zeros(9)) == 1.0


def test_holm_corrects_together() -> None:
    found = compare.holm({"a": 0.01, "b": 0.04, "c": 0.03})
    assert found == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})


def test_nemenyis_critical_difference_is_the_published_one() -> None:
    # Demsar, 2006: four methods on 14 data sets, 1.25.
    rng = np.random.default_rng(1)
    found = compare.ranks({name: rng.normal(size=14).tolist() for name in "abcd"})
    assert found is not None
    assert found.critical == pytest.approx(1.25, abs=0.005)
    assert sum(found.average.values()) == pytest.approx(10)
    clear = compare.ranks(
        {name: (rng.normal(size=14) + 9 * n).tolist() for n, name in enumerate("abcd")}
    )
    assert clear is not None and clear.differ
    assert clear.average == {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}
    assert compare.ranks({"a": [1.0, 2.0], "b": [2.0, 3.0]}) is None


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(4)
    held = 0
    for _ in range(REPETITIONS):
        found = compare.mean(rng.exponential(size=20))
        assert found.low is not None and found.high is not None
        held += found.low <= 1.0 <= found.high
    # Bootstrap intervals of a skewed mean are a little too narrow.
    assert 0.86 * REPETITIONS < held < REPETITIONS


def test_one_seed_has_no_interval() -> None:
    found = compare.median([2.0])
    assert (found.value, found.low, found.high) == (2.0, None, None)
    assert not found.excludes_zero


def test_methods_that_are_alike_are_hardly_ever_told_apart() -> None:
    """In at most one of twenty repetitions, whatever else is in the same table."""
    rng = np.random.default_rng(11)
    claims = 0
    for _ in range(REPETITIONS):
        final = {name: rng.lognormal(size=20).tolist() for name in ("random", "b", "c", "d")}
        others = {name: values for name, values in final.items() if name != "random"}
        found = compare.of_differences(
            {name: np.subtract(values, final["random"]) for name, values in others.items()}
        )
        order = sorted(final, key=lambda name: float(np.median(final[name])))
        words = leaders(order, final, compare.ranks(final))
        claims += any(v.differs for v in found.values()) or "is better" in words
    assert claims <= 0.05 * REPETITIONS


def test_a_difference_that_is_there_is_found_and_its_size_is_right() -> None:
    rng = np.random.default_rng(8)
    paired = rng.normal(size=20)
    worse = paired + 0.5 + 0.1 * rng.normal(size=20)
    (found,) = compare.versus(worse.tolist(), {"other": paired.tolist()}).values()
    assert found.differs and found.verdict == "worse"
    assert found.difference.low is not None and found.difference.high is not None
    assert found.difference.low < 0.5 < found.difference.high
    assert found.chance.value == 0.0


def test_how_many_more_seeds_is_about_right() -> None:
    """With as many as it says the same difference is found in most repetitions."""
    rng = np.random.default_rng(6)
    (few,) = compare.versus(rng.normal(0.4, 1.0, size=12).tolist(), {"o": [0.0] * 12}).values()
    assert not few.differs and few.more_seeds is not None
    assert f"about {few.more_seeds} more seeds" in few.verdict
    drawn = rng.normal(few.difference.value, 1.0, size=(60, 12 + few.more_seeds))
    found = [compare.wilcoxon(row) < compare.ALPHA for row in drawn]
    assert 0.6 < np.mean(found) < 0.95


def _of(results: list[Result]) -> Any:
    (task,) = analyse(results, "trials").tasks
    return {method.name.split(" / ")[1]: method for method in task.methods}, task


def test_a_planted_difference_is_found_in_replayed_searches() -> None:
    table = tables.made_up(150, steps=1, noise=0.02, seed=2)
    seeds = range(20)
    results = searched(table, RandomSampler, "random", seeds)
    results += searched(table, Better, "tpe", seeds) + searched(table, Guided, "qmc", seeds)
    methods, task = _of(results)
    assert methods["tpe"].versus_random.verdict == "better"
    assert "no detectable difference" in methods["qmc"].versus_random.verdict
    # Four draws for each trial: worth about four of random search's.
    assert methods["tpe"].speed_up.low < 4 < methods["tpe"].speed_up.high
    assert methods["random"].speed_up.low <= 1 <= methods["random"].speed_up.high
    assert methods["tpe"].sandwich.value > 0.4
    assert task.methods[0].name.endswith("tpe") and "cannot be told apart" not in task.leaders


@pytest.mark.long
def test_without_a_difference_one_is_claimed_in_one_of_twenty_at_most() -> None:
    claims = []
    for number in range(REPETITIONS):
        table = tables.made_up(150, steps=1, noise=0.02, seed=number)
        seeds = range(1000 * number, 1000 * number + 20)
        results = searched(table, RandomSampler, "random", seeds)
        methods, task = _of(results + searched(table, Guided, "qmc", seeds))
        claims.append(methods["qmc"].versus_random.differs or "is better" in task.leaders)
    print(f"{sum(claims)} claims in {REPETITIONS} repetitions")
    assert sum(claims) <= 0.05 * REPETITIONS


@pytest.mark.long
def test_a_planted_difference_is_found_nearly_always() -> None:
    found = []
    for number in range(20):
        table = tables.made_up(150, steps=1, noise=0.02, seed=number)
        seeds = range(1000 * number, 1000 * number + 20)
        results = searched(table, RandomSampler, "random", seeds)
        methods, _ = _of(results + searched(table, Better, "tpe", seeds))
        found.append(methods["tpe"].versus_random.verdict == "better")
    print(f"found in {sum(found)} of 20 repetitions")
    assert sum(found) >= 16


def test_the_budget_may_be_in_node_seconds() -> None:
    scale = Scale(0.0, 1.0, Direction.MIN)
    fast, slow = a_trace(0.5, 0.25, 0.125, 0.0625, at=10.0), a_trace(0.25, 0.0625, at=20.0)
    results = [
        Result(Cell("e", name, "none", 1, 1), trace, scale)
        for name, trace in (("random", slow), ("tpe", fast))
    ]
    (task,) = analyse(results, "node_s").tasks
    regrets = {m.name: {k: 10**v.value for k, v in m.regret.items()} for m in task.methods}
    assert regrets["e / random"] == pytest.approx({"25": 1.0, "50": 0.25, "100": 0.0625})
    assert regrets["e / tpe"] == pytest.approx({"25": 0.5, "50": 0.25, "100": 0.0625})


def test_only_seeds_that_both_have_are_compared() -> None:
    scale = Scale(0.0, 1.0, Direction.MIN)
    values = {"random": {1: 0.5, 2: 0.4, 3: 0.3}, "tpe": {2: 0.1, 3: 0.1, 4: 0.9}}
    results = [
        Result(Cell("e", name, "none", 1, seed), a_trace(value), scale)
        for name, own in values.items()
        for seed, value in own.items()
    ]
    methods, _ = _of(results)
    against = methods["tpe"].versus_random
    assert (against.seeds, against.chance.value) == (2, 1.0)
    assert methods["tpe"].searches == 3


# --- an honest winner ---------------------------------------------------------------------


def test_the_leading_configurations_come_once_each() -> None:
    scale = Scale(0.0, 1.0, Direction.MIN)
    results = [
        Result(Cell("e", "random", "none", 1, seed), a_trace(*values), scale)
        for seed, values in ((1, (0.5, 0.2, None)), (2, (0.1, 0.4, 0.3)))
    ]
    assert leading(results, 2) == [({"x": 0}, 0.1), ({"x": 1}, 0.2)]


def test_a_lucky_leader_is_found_out() -> None:
    seen = [({"x": 1}, 0.95), ({"x": 2}, 0.93), ({"x": 3}, 0.92)]
    fresh = {
        '{"x": 1}': [0.90, 0.91, 0.90, 0.89, 0.90],
        '{"x": 2}': [0.93, 0.93, 0.92, 0.94, 0.93],
        '{"x": 3}': [0.92, 0.94, 0.93, 0.93, 0.92],
    }
    found = judged(seen, fresh, Direction.MAX)
    assert found is not None
    assert [candidate.params["x"] for candidate in found.candidates] == [2, 3, 1]
    assert found.bias == pytest.approx(0.05)
    assert found.words == "the first cannot be told apart from number 2"
    alike = judged(seen[1:], fresh, Direction.MAX)
    assert alike is not None and alike.words == "the first 2 cannot be told apart"


def test_luck_in_a_table_is_what_other_curves_show() -> None:
    table = tables.made_up(60, steps=1, slope=0.0, noise=1.0, seeds=8)
    results = searched(table, RandomSampler, "random", range(20))
    luck = bias_in_table(table, results)
    # Nothing but noise: the best of twenty lies about 1.9 below the mean.
    assert luck is not None and luck.low is not None and luck.high is not None
    assert 1.2 < luck.value < 2.6 and luck.low > 0.5
    assert bias_in_table(tables.made_up(9, seeds=1), []) is None


def test_the_scale_is_that_of_the_curves_a_seed_meets() -> None:
    table = tables.made_up(30, steps=1, noise=1.0)
    values = table.values()[np.arange(30), table.drawn(7)]
    assert scale_of_table(table, 7).best == values.min()
    assert scale_of_table(table, 7).median == np.median(values)
