"""What every sampler of ours promises, whatever the space, the failures and the restarts.

KerasTuner's oracles promise less of a space, and have a suite of their own.
"""

from __future__ import annotations

import collections
import dataclasses
import importlib.util
import math
import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hpo.errors import SpaceError, UsageError
from hpo.hyperparameters import to_hyperparameters
from hpo.parameter import Condition, Kind, Parameter
from hpo.registry import SAMPLERS, owner_of
from hpo.samplers.base import Exhausted, Outcome
from hpo.space import SearchSpace
from hpo.trial import Direction, Params, Report, TrialState
from tests.conformance.test_samplers import Search, each
from tests.support import space_strategies as spaces

OURS = [name for name in SAMPLERS if name != "grid" and owner_of(name) is None]
MODELS = [name for name in OURS if name not in ("random", "qmc")]
some = settings(max_examples=10, deadline=None)

DEEP = (Condition("deep", (True,)),)
FLAT = (Condition("deep", (False,)),)
# With a name that has another range in the other branch, and no conditions for `gp`.
NESTED = SearchSpace(
    [
        Parameter("deep", Kind.BOOLEAN, False),
        Parameter("rate", Kind.FLOAT, 0.001, low=0.001, high=0.1, sampling="log"),
        Parameter("units", Kind.INT, low=8, high=64, step=8, conditions=DEEP),
        Parameter("units", Kind.INT, low=1, high=3, step=1, conditions=FLAT),
        Parameter("skip", Kind.BOOLEAN, False, conditions=DEEP),
    ]
)
PLAIN = SearchSpace(
    [
        Parameter("units", Kind.INT, low=1, high=64, sampling="log"),
        Parameter("rate", Kind.FLOAT, 0.001, low=0.001, high=0.1, sampling="log"),
        Parameter("decay", Kind.FLOAT, 0.1, low=0.1, high=0.9, sampling="reverse_log"),
        Parameter("kind", Kind.CHOICE, "a", values=("a", "b", "c")),
        Parameter("depth", Kind.CHOICE, 1, values=(1, 2, 4), ordered=True),
    ]
)


def _space_for(name: str) -> SearchSpace:
    return PLAIN if name in ("gp", "cmaes") else NESTED


def _followed(search: Search, trials: int, fates: random.Random, disturb: random.Random) -> Search:
    """Three at a time; trials complete, fail, diverge or are pruned. ``disturb`` restarts."""
    while len(search.records) < trials:
        if disturb.random() < 0.2:
            search.restart()
        if not search.ask():
            break
        if len(search.pending()) == 3:
            _end_one(search, fates)
    return search


def _end_one(search: Search, fates: random.Random) -> None:
    trial = fates.choice(search.pending())
    fate, value = fates.random(), _value(trial.params)
    history = tuple(Report(step, {"loss": value + 3 - step}) for step in (1, 2, 3))
    search.records[trial.trial_id] = dataclasses.replace(trial, history=history)
    if fate < 0.1:
        search.fail(trial.trial_id)
    elif fate < 0.15:
        search.end(trial.trial_id, math.nan)
    elif fate < 0.3:
        search.prune(trial.trial_id, value)
    else:
        search.end(trial.trial_id, value)


def _value(params: Params) -> float:
    """Some landscape over any point."""
    return sum(abs(math.log(v) + 3) for v in params.values() if type(v) is float and v > 0)


class _Never(random.Random):
    def random(self) -> float:
        return 1.0


@each(OURS)
def test_what_is_rebuilt_at_random_instants_proposes_what_it_would_have(name: str) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    study = spaces.a_study(_space_for(name))
    undisturbed = _followed(Search(name, study), 40, random.Random(seed), _Never())
    disturbed = _followed(Search(name, study), 40, random.Random(seed), random.Random(seed))
    assert disturbed.points == undisturbed.points
    assert disturbed.records.keys() == undisturbed.records.keys()
    notes = [record.tag for record in disturbed.records.values()]
    assert notes == [record.tag for record in undisturbed.records.values()]


@each(OURS)
@some
@given(space=spaces.spaces(), seed=st.integers(0, 9))
def test_points_of_any_space_are_valid_and_never_repeated(
    name: str, space: SearchSpace, seed: int
) -> None:
    search = Search(name, spaces.a_study(space), seed)
    _followed(search, 16, random.Random(seed), random.Random(seed))
    for point in search.points:
        space.validate(point)
    assert len({spaces.frozen(point) for point in search.points}) == len(search.points)
    assert len(search.points) == 16 or len(search.points) == space.size


@each(OURS)
@some
@given(space=spaces.spaces(finite=True), seed=st.integers(0, 9))
def test_a_small_space_is_used_up_and_then_exhausted(
    name: str, space: SearchSpace, seed: int
) -> None:
    size = space.size
    assert size is not None
    search = Search(name, spaces.a_study(space), seed)
    most = min(size, 40)
    _followed(search, size + 1 if size <= most else most, random.Random(seed), _Never())
    assert len({spaces.frozen(point) for point in search.points}) == len(search.points) == most
    if size == most:
        assert isinstance(search.sampler.ask("more", search.pending()), Exhausted)


@each(OURS)
def test_both_ends_of_a_range_are_reached(name: str) -> None:
    """In a space so small that every level must come."""
    ends = SearchSpace(
        [
            Parameter("step", Kind.FLOAT, 0.0, low=0.0, high=1.0, step=0.2),
            Parameter("log", Kind.INT, low=1, high=8, step=2, sampling="log"),
        ]
    )
    points = Search(name, spaces.a_study(ends)).run(24, running=4)
    assert {point["step"] for point in points} == {0.0, 0.2, 0.4, 0.6, 0.8, 1.0}
    assert {point["log"] for point in points} == {1, 2, 4, 8}


@each(MODELS)
@pytest.mark.parametrize("direction", list(Direction))
def test_a_model_beats_chance(name: str, direction: Direction) -> None:
    """Late points lie nearer to the optimum than random ones do, which lie .25 away."""
    ends: dict[str, Any] = {"low": 0.0, "high": 1.0}
    space = SearchSpace([Parameter(x, Kind.FLOAT, 0.0, **ends) for x in ("x", "y")])
    search = Search(name, spaces.a_study(space, direction=direction))
    sign = -1 if direction is Direction.MAX else 1
    while len(search.records) < 60 and search.ask():
        (trial,) = search.pending()
        away = [float(trial.params[x]) - 0.7 for x in ("x", "y")]
        search.end(trial.trial_id, value=sign * sum(d * d for d in away))
    late = [abs(float(p[x]) - 0.7) for p in search.points[40:] for x in ("x", "y")]
    assert sum(late) / len(late) < 0.17


@each([name for name in MODELS if name != "cmaes"])
def test_what_runs_changes_what_is_proposed(name: str) -> None:
    """One that failed says nothing; one that runs keeps others away from where it is."""
    space = SearchSpace([Parameter("x", Kind.FLOAT, 0.0, low=0.0, high=1.0)])

    def next_point(seed: int, runs: bool) -> Params:
        search = Search(name, spaces.a_study(space), seed)
        search.run(15)
        search.ask()
        if not runs:
            for trial in search.pending():
                search.fail(trial.trial_id)
        search.ask()
        return search.points[-1]

    assert any(next_point(seed, True) != next_point(seed, False) for seed in range(10))


@each(OURS)
@pytest.mark.parametrize("takes", [TrialState.COMPLETED, TrialState.PRUNED, TrialState.FAILED])
def test_what_another_run_tried_is_not_tried_again(name: str, takes: TrialState) -> None:
    points = [{"step": step, "flag": flag} for step in (1, 2, 3) for flag in (False, True)]
    space = SearchSpace(
        [
            Parameter("step", Kind.INT, low=1, high=3, step=1),
            Parameter("flag", Kind.BOOLEAN, False),
        ]
    )
    search = Search(name, spaces.a_study(space))
    known = [Outcome(dict(point), takes, 1.0, ((1, 2.0), (2, 1.0))) for point in points[:4]]
    search.sampler.learn(known)
    found = search.run(6)
    assert sorted(map(spaces.frozen, found)) == sorted(map(spaces.frozen, points[4:]))


@each([name for name in MODELS if name != "cmaes"])
def test_a_model_goes_on_from_what_another_run_found(name: str) -> None:
    """Its first point already is no random one: it lies where the other run's best did."""
    space = SearchSpace([Parameter("x", Kind.FLOAT, 0.0, low=0.0, high=1.0)])
    rng = random.Random(3)
    tried = [rng.random() for _ in range(30)]
    known = [Outcome({"x": x}, TrialState.COMPLETED, abs(x - 0.2)) for x in tried]
    distances = []
    for seed in range(5):
        search = Search(name, spaces.a_study(space), seed)
        search.sampler.learn(known)
        search.ask()
        distances.append(abs(float(search.points[0]["x"]) - 0.2))
    assert sorted(distances)[2] < 0.1


@each(MODELS)
def test_one_that_fails_is_replaced_by_points_that_were_not_tried(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = SearchSpace([Parameter("step", Kind.INT, low=1, high=6, step=1)])
    search = Search(name, spaces.a_study(few))

    def fails(self: Any, seed: int) -> Any:
        raise ZeroDivisionError

    search.ask()
    monkeypatch.setattr(type(search.sampler), "made", fails)
    while len(search.records) < 6:
        if len(search.records) == 3:
            search.restart()
        with pytest.raises(ZeroDivisionError):
            search.ask()
        trial_id = f"{len(search.records):04d}"
        search.take(search.sampler.fall_back(trial_id, ZeroDivisionError("none")))
    assert sorted(int(point["step"]) for point in search.points) == [1, 2, 3, 4, 5, 6]


def test_gp_refuses_conditional_parameters_by_name() -> None:
    with pytest.raises(SpaceError, match="'units' is conditional"):
        SAMPLERS.load("gp").check(spaces.a_study(NESTED))
    SAMPLERS.load("gp").check(spaces.a_study(PLAIN))


@pytest.mark.gp
def test_bayesian_is_a_gaussian_process_where_that_suits() -> None:
    for space, kind in ((PLAIN, "GPSampler"), (NESTED, "TPESampler")):
        assert (
            f"samplers.{kind} " in Search("bayesian", spaces.a_study(space)).sampler.implementation
        )


@pytest.mark.parametrize("package", ["torch", "optuna"])
def test_a_missing_package_is_named_with_what_to_do(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything_else = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: None if name == package else everything_else("json"),
    )
    with pytest.raises(UsageError, match=rf"needs {package}, which is not installed: pip install"):
        SAMPLERS.load("gp").check_installed()
    kind = Search("bayesian", spaces.a_study(PLAIN)).sampler.implementation
    assert ("TPESampler" in kind) is (package == "torch")


# Each of so many comparisons may fail by chance, all of them together once in a million times.
FALSE_ALARM = 1e-6
DRAWN = [
    Parameter("linear", Kind.INT, low=-3, high=8, step=1),
    Parameter("steps", Kind.INT, low=6, high=13, step=3),
    Parameter("log", Kind.INT, low=1, high=8, sampling="log"),
    Parameter("mirrored", Kind.INT, low=1, high=8, sampling="reverse_log"),
    Parameter("powers", Kind.INT, low=1, high=64, step=2, sampling="log"),
    Parameter("quarters", Kind.FLOAT, 0.0, low=0.0, high=1.0, step=0.25),
    Parameter("words", Kind.CHOICE, "a", values=("a", "b", "c")),
    Parameter("flag", Kind.BOOLEAN, False),
    Parameter("free", Kind.FLOAT, 2.0, low=2.0, high=5.0),
    Parameter("rate", Kind.FLOAT, 1e-4, low=1e-4, high=1.0, sampling="log"),
    Parameter("decay", Kind.FLOAT, 0.1, low=0.1, high=0.9, sampling="reverse_log"),
]


def test_random_draws_each_parameter_as_keras_tuner_does() -> None:
    """By chi-square where there are levels, by Kolmogorov and Smirnov where there are none."""
    draws_as_keras_tuner_does("random", DRAWN)


def draws_as_keras_tuner_does(name: str, drawn: Sequence[Parameter]) -> None:
    """Each parameter has KerasTuner's own distribution."""
    seed, space = random.randrange(10**6), SearchSpace(drawn)
    print(f"seed {seed}")
    points = Search(name, spaces.a_study(space), seed).run(3000, running=9999)
    for theirs, parameter in zip(to_hyperparameters(space, {}).space, drawn, strict=True):
        ours = [point[parameter.name] for point in points]
        # Their rule, at probabilities so fine that what is between them does not matter.
        ruled = [theirs.prob_to_value((i + 0.5) / 20_000) for i in range(20_000)]
        if parameter.count is None:
            chance = stats.ks_2samp(ours, ruled).pvalue
        else:
            shares = collections.Counter(map(_level, ruled))
            seen = collections.Counter(map(_level, ours))
            assert seen.keys() <= shares.keys()
            expected = [shares[level] * len(ours) / len(ruled) for level in shares]
            chance = stats.chisquare([seen[level] for level in shares], expected).pvalue
        assert chance > FALSE_ALARM / len(drawn), parameter.name


def _level(value: Any) -> Any:
    return round(value, 9) if type(value) is float else value
