"""Parameters, spaces, points and grids, held against KerasTuner's own classes."""

from __future__ import annotations

import collections
import dataclasses
import functools
import importlib
import itertools
import json
import math
import pathlib
import random
import subprocess
import sys
import types
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hpo.errors import SpaceError
from hpo.hyperparameters import from_hyperparameters, to_config, to_hyperparameters
from hpo.parameter import Condition, Kind, Parameter
from hpo.space import SearchSpace
from tests import spaces

ROOT = pathlib.Path(__file__).resolve().parents[1]
BELOW_ONE = math.nextafter(1.0, 0.0)

few = settings(max_examples=40, deadline=None)
some = settings(max_examples=100, deadline=None)
numerics = st.one_of(spaces.ints("n"), spaces.stepped_floats("n"), spaces.free_floats("n"))
finite_ones = st.one_of(
    spaces.ints("n"),
    spaces.stepped_floats("n"),
    spaces.choices("n"),
    spaces.booleans("n"),
    spaces.fixed("n"),
)
seeds = st.integers(0, 2**32).map(random.Random)


@pytest.fixture(scope="session")
def kt() -> types.ModuleType:
    """The real package; from here on this process has its classes, not the lean ones."""
    return importlib.import_module("keras_tuner")


def a_float(low: float, high: float, step: float | None, sampling: str = "linear") -> Parameter:
    return Parameter("n", Kind.FLOAT, low, low=low, high=high, step=step, sampling=sampling)


def an_int(low: int, high: int, step: int | None = None, sampling: str = "linear") -> Parameter:
    return Parameter("n", Kind.INT, low=low, high=high, step=step, sampling=sampling)


def theirs(kt: types.ModuleType, parameter: Parameter) -> Any:
    """KerasTuner's own object for ``parameter``."""
    return to_hyperparameters(SearchSpace([parameter]), {}).space[0]


# --- there and back -----------------------------------------------------------------------


@some
@given(space=spaces.spaces())
def test_a_space_survives_json(space: SearchSpace) -> None:
    again = SearchSpace.from_json(json.loads(json.dumps(space.to_json())))
    assert again == space
    assert again.digest() == space.digest()
    assert [type(p.initial) for p in again.parameters] == [
        type(p.initial) for p in space.parameters
    ]


@some
@given(space=spaces.spaces())
def test_a_space_survives_kerastuner(kt: types.ModuleType, space: SearchSpace) -> None:
    hp = to_hyperparameters(space, space.defaults())
    assert isinstance(hp, kt.HyperParameters)
    assert from_hyperparameters(hp) == space


@some
@given(space=spaces.spaces())
def test_what_a_person_declares_survives(kt: types.ModuleType, space: SearchSpace) -> None:
    declared = kt.HyperParameters()
    spaces.declare(space, declared)
    ours = from_hyperparameters(declared)
    back = to_hyperparameters(ours, declared.values)
    assert ours == space
    assert _plain(back.get_config()) == _plain(declared.get_config())
    assert declared.values == space.defaults()


def _plain(config: dict[str, Any]) -> Any:
    """A configuration as JSON would hold it, where tuples are lists."""
    return json.loads(json.dumps(config))


def test_spaces_that_differ_in_one_bit_have_different_digests() -> None:
    space = SearchSpace([an_int(1, 4, 1), Parameter("b", Kind.BOOLEAN, default=False)])
    others = [
        SearchSpace([an_int(1, 5, 1), space.parameters[1]]),
        SearchSpace([an_int(1, 4, None, "log"), space.parameters[1]]),
        SearchSpace(space.parameters[::-1]),
    ]
    assert len({s.digest() for s in (space, *others)}) == 4


# --- points -------------------------------------------------------------------------------


@some
@given(space=spaces.spaces(), rng=seeds)
def test_a_sample_is_valid_and_what_kerastuner_would_take(
    kt: types.ModuleType, space: SearchSpace, rng: random.Random
) -> None:
    params = space.sample(rng)
    space.validate(params)
    hp = kt.HyperParameters.from_config(to_config(space, params))
    if len({p.name for p in space.parameters}) == len(space.parameters):
        # Where a name has two branches, KerasTuner itself drops the value of the active one.
        hp.ensure_active_values()
    assert hp.values == params
    for own, other in zip(space.parameters, hp.space, strict=True):
        assert hp.is_active(other) == own.active(params)
    for own, value in zip(space.parameters, spaces.declare(space, hp), strict=True):
        assert value == (params[own.name] if own.active(params) else None)


@few
@given(space=spaces.spaces(), rng=seeds)
def test_a_point_survives_json(space: SearchSpace, rng: random.Random) -> None:
    params = space.sample(rng)
    again = json.loads(json.dumps(params))
    space.validate(again)
    assert spaces.frozen(again) == spaces.frozen(params)


@few
@given(space=spaces.spaces(), rng=seeds, data=st.data())
def test_what_does_not_belong_is_refused_by_name(
    space: SearchSpace, rng: random.Random, data: st.DataObject
) -> None:
    params = space.sample(rng)
    name = data.draw(st.sampled_from(sorted(params)))
    inactive = sorted({p.name for p in space.parameters} - set(params))
    cases: list[tuple[str, dict[str, Any]]] = [
        (name, {k: v for k, v in params.items() if k != name}),
        (name, {**params, name: object()}),
        (name, {**params, name: math.nan}),
        ("nobody", {**params, "nobody": 1}),
        *((other, {**params, other: 1}) for other in inactive),
    ]
    for wrong, given_params in cases:
        with pytest.raises(SpaceError, match="'") as refused:
            space.validate(given_params)
        assert repr(wrong) in str(refused.value)


def test_a_value_must_have_its_native_type() -> None:
    truth = Parameter("b", Kind.BOOLEAN, default=False)
    words = Parameter("c", Kind.CHOICE, values=("1", "2"))
    assert an_int(0, 4, 1).contains(1)
    assert not an_int(0, 4, 1).contains(True)
    assert not an_int(0, 4, 1).contains(1.0)
    assert a_float(0, 4, None).contains(1)
    assert not a_float(0, 4, None).contains(True)
    assert not a_float(0, 4, 1.0).contains("1")
    assert truth.contains(True) and not truth.contains(1)
    assert words.contains("1") and not words.contains(1)


def test_what_is_allowed_is_said() -> None:
    space = SearchSpace([an_int(6, 13, 3)])
    with pytest.raises(SpaceError, match=r"'n' = 13 is outside .* int 6\.\.13 step 3"):
        space.validate({"n": 13})


# --- a value from a probability -----------------------------------------------------------


@some
@given(parameter=finite_ones)
def test_levels_are_distinct_valid_and_reached(parameter: Parameter) -> None:
    count = parameter.count
    assert count is not None and count > 0
    ends = [parameter.level(0), parameter.level(count - 1)]
    assert [parameter.from_unit(0.0), parameter.from_unit(1.0)] == ends
    assert parameter.from_unit(BELOW_ONE) == ends[1]
    levels = list(itertools.islice(parameter.levels(), 400))
    assert len(set(levels)) == len(levels) == min(count, 400)
    for level in levels:
        assert parameter.contains(level)
        assert parameter.from_unit(parameter.to_unit(level)) == level


@some
@given(parameter=spaces.free_floats("n"), p=st.floats(0, 1))
def test_a_free_float_stays_within_its_ends_and_reaches_them(
    parameter: Parameter, p: float
) -> None:
    assert parameter.low is not None and parameter.high is not None
    assert parameter.from_unit(0.0) == pytest.approx(parameter.low)
    assert parameter.from_unit(1.0) == pytest.approx(parameter.high)
    value = parameter.from_unit(p)
    assert parameter.contains(value) and type(value) is float
    assert parameter.from_unit(parameter.to_unit(value)) == pytest.approx(value)


@settings(max_examples=300, deadline=None)
@given(parameter=numerics, p=st.floats(0, 1, exclude_max=True))
def test_a_value_is_kerastuners_wherever_kerastuner_is_right(
    kt: types.ModuleType, parameter: Parameter, p: float
) -> None:
    other = theirs(kt, parameter)
    own, value = parameter.from_unit(p), other.prob_to_value(p)
    if parameter.step is not None:
        count = _true_count(parameter)
        assert parameter.count == count
        # At the very border of two shares rounding decides.
        assume(abs(p * count - round(p * count)) > 1e-6 or p == 0.0)
        if other._get_n_values() != count:
            last = parameter.level(count - 1)
            assert last not in [pytest.approx(v) for v in other.values]
            return
    if parameter.kind is Kind.INT:
        assert parameter.low is not None and parameter.high is not None
        assert own == min(max(value, parameter.low), parameter.high)
    else:
        assert own == pytest.approx(value, rel=1e-9, abs=1e-12)


@some
@given(parameter=st.one_of(spaces.ints("n"), spaces.stepped_floats("n")), p=st.floats(0, 1))
def test_what_kerastuner_samples_on_a_lattice_is_valid(
    kt: types.ModuleType, parameter: Parameter, p: float
) -> None:
    assume(parameter.step is not None)
    value = theirs(kt, parameter).prob_to_value(p)
    assert parameter.contains(value), value
    assert parameter.from_unit(parameter.to_unit(value)) == pytest.approx(value)


def _true_count(parameter: Parameter) -> int:
    """How many levels a stepped parameter has, in exact arithmetic on what was written."""
    low, high, step = (Fraction(str(x)) for x in (parameter.low, parameter.high, parameter.step))
    if parameter.sampling == "linear":
        return (high - low) // step + 1
    # What a person writes as a power has some twelve digits.
    reach = high * (1 + Fraction(1, 10**9)) if parameter.kind is Kind.FLOAT else high
    return sum(1 for _ in itertools.takewhile(lambda i: low * step**i <= reach, itertools.count()))


def test_the_upper_end_that_kerastuner_loses(kt: types.ModuleType) -> None:
    fifths = a_float(0.0, 1.0, 0.2)
    assert max(theirs(kt, fifths).values) == pytest.approx(0.8)
    assert list(fifths.levels()) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert list(a_float(0.1, 0.5, 0.1).levels()) == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert list(an_int(6, 13, 3).levels()) == [6, 9, 12]


def test_the_value_beyond_its_end_that_kerastuner_gives(kt: types.ModuleType) -> None:
    skewed = an_int(1, 64, None, "log")
    assert theirs(kt, skewed).prob_to_value(1.0) == 65
    assert skewed.from_unit(1.0) == 64
    assert an_int(1, 64, None, "reverse_log").from_unit(1.0) == 64


def test_the_marginals_of_a_logarithmic_integer() -> None:
    shares = [(i + 0.5) / 20_000 for i in range(20_000)]
    seen = collections.Counter(an_int(1, 4, None, "log").from_unit(p) for p in shares)
    expected = [math.log((n + 1) / n) / math.log(5) for n in range(1, 5)]
    assert [seen[n] / 20_000 for n in range(1, 5)] == pytest.approx(expected, abs=1e-3)
    assert expected == pytest.approx([0.43, 0.25, 0.18, 0.14], abs=5e-3)
    mirror = collections.Counter(an_int(1, 4, None, "reverse_log").from_unit(p) for p in shares)
    assert [mirror[5 - n] / 20_000 for n in range(1, 5)] == pytest.approx(expected, abs=1e-3)


def test_a_step_makes_every_level_as_likely() -> None:
    powers = an_int(2, 32, 2, "log")
    seen = collections.Counter(powers.from_unit((i + 0.5) / 1000) for i in range(1000))
    assert seen == {2: 200, 4: 200, 8: 200, 16: 200, 32: 200}


def test_integers_are_exact_however_large() -> None:
    large = an_int(0, 2**62 - 1, 1)
    assert large.count == 2**62
    assert large.level(2**62 - 1) == large.from_unit(1.0) == 2**62 - 1
    even = an_int(0, 10**12, 2)
    assert even.contains(10**12 - 2) and not even.contains(10**12 - 1)
    assert an_int(1, 10**12 - 1, 10, "log").count == 12
    assert max(an_int(1, 10**12, 10, "log").levels()) == 10**12


def test_a_float_whose_ends_meet_has_one_value() -> None:
    single = a_float(0.5, 0.5, None)
    assert list(single.levels()) == [0.5]
    assert single.from_unit(0.3) == 0.5 and single.contains(0.5) and not single.contains(0.6)
    assert SearchSpace([single]).size == 1


def test_dust_around_zero_is_on_the_lattice() -> None:
    assert a_float(-0.3, 0.3, 0.1).contains(-0.3 + 3 * 0.1)
    assert a_float(1.1, 1.331, 1.1, "log").contains(1.1 * 1.1**2)
    assert not a_float(-0.3, 0.3, 0.1).contains(0.01)


def test_an_end_just_short_of_the_lattice_is_never_passed() -> None:
    for high in (1e6 * (1 - 2e-9), 1e6 * (1 - 1e-12), 1e6):
        assert max(a_float(1.0, high, 100, "log").levels()) == high


@pytest.mark.parametrize("ends", [(0.0, math.inf), (-math.inf, 1.0)])
def test_infinite_ends_are_refused(kt: types.ModuleType, ends: tuple[float, float]) -> None:
    hp = kt.HyperParameters()
    hp.Float("rate", *ends)
    with pytest.raises(SpaceError, match=r"'rate' runs from .* finite"):
        from_hyperparameters(hp)


@pytest.mark.parametrize("step", [0, -1])
def test_a_step_that_leads_nowhere_is_refused(kt: types.ModuleType, step: int) -> None:
    hp = kt.HyperParameters()
    hp.Int("units", 1, 8, step=step)
    with pytest.raises(SpaceError, match=r"'units' has step .* positive"):
        from_hyperparameters(hp)


# --- the grid -----------------------------------------------------------------------------


@few
@given(space=spaces.spaces(finite=True))
def test_the_grid_is_every_point_once_the_last_declared_fastest(space: SearchSpace) -> None:
    expected = [spaces.frozen(point) for point in spaces.brute_force(space)]
    grid = space.grid()
    assert [spaces.frozen(point) for point in grid] == expected
    assert grid.size == space.size == len(expected)
    for index in {0, len(expected) // 2, len(expected) - 1}:
        assert spaces.frozen(grid[index]) == expected[index]
    for index in (-1, len(expected)):
        with pytest.raises(IndexError):
            grid[index]


some_of_twelve = st.sets(st.integers(1, 12), min_size=1).map(lambda found: tuple(sorted(found)))


@few
@given(children=st.lists(some_of_twelve, min_size=1, max_size=3))
def test_the_grid_below_a_parent_of_many_values(children: list[tuple[int, ...]]) -> None:
    own = [
        dataclasses.replace(an_int(0, 1 + i, 1), name=f"c{i}", conditions=(Condition("n", values),))
        for i, values in enumerate(children)
    ]
    space = SearchSpace([an_int(1, 12, 1), *own])
    expected = [spaces.frozen(point) for point in spaces.brute_force(space)]
    assert [spaces.frozen(point) for point in space.grid()] == expected


@few
@given(space=spaces.spaces(finite=True), rng=seeds)
def test_every_sample_of_a_finite_space_is_on_its_grid(
    space: SearchSpace, rng: random.Random
) -> None:
    on_grid = {spaces.frozen(point) for point in space.grid()}
    assert {spaces.frozen(space.sample(rng)) for _ in range(20)} <= on_grid


@pytest.mark.parametrize(
    "parameter",
    [
        Parameter("n", Kind.INT, low=0, high=10**12 - 1, step=1),
        Parameter("n", Kind.INT, low=0, high=3 * 10**12 - 1, step=3),
        Parameter("n", Kind.INT, low=1, high=10**12, sampling="log"),
        Parameter("n", Kind.FLOAT, low=0.0, high=10**6 - 1e-6, step=1e-6),
    ],
    ids=Parameter.describe,
)
def test_a_vast_range_is_never_enumerated(parameter: Parameter) -> None:
    last = Parameter("b", Kind.BOOLEAN, default=False)
    grid = SearchSpace([parameter, last]).grid()
    assert grid.size == 2 * 10**12
    assert grid[2 * 10**12 - 1] == {"n": parameter.level(10**12 - 1), "b": True}
    assert grid[10**12] == {"n": parameter.level(10**12 // 2), "b": False}
    assert [point["b"] for point in itertools.islice(grid, 3)] == [False, True, False]


def test_a_vast_parent_is_never_enumerated() -> None:
    """What hangs on a few of its values costs as much as these, not as all the others."""
    vast = Parameter("n", Kind.INT, low=1, high=10**12, step=1)
    some = Condition("n", (5, 10**12 // 2, 10**12))
    few = Condition("n", (10**12, 7))
    space = SearchSpace(
        [
            vast,
            dataclasses.replace(an_int(1, 4, 1), name="a", conditions=(some,)),
            Parameter("b", Kind.BOOLEAN, default=False, conditions=(few,)),
        ]
    )
    grid, last = space.grid(), {"n": 10**12, "a": 4, "b": True}
    # Three more for the first, for the second; one more for 7; seven more for the last.
    assert grid.size == 10**12 + 3 + 3 + 1 + 7
    assert grid[grid.size - 1] == last
    assert [grid[index] for index in range(3, 8)] == [
        {"n": 4},
        *({"n": 5, "a": a} for a in range(1, 5)),
    ]
    assert grid[10**12 // 2 - 1 + 4] == {"n": 10**12 // 2, "a": 1}
    assert grid[10**12 - 1 + 7 - 1] == {"n": 10**12 - 1}


def test_a_vast_product_is_never_enumerated() -> None:
    digits = [Parameter(f"d{i}", Kind.CHOICE, values=tuple(range(10))) for i in range(12)]
    space = SearchSpace(digits)
    assert space.size == 10**12
    assert list(space.grid()[123_456_789_012].values()) == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2]


def test_the_grid_takes_its_levels_from_the_study() -> None:
    sgd = (Condition("optimizer", ("sgd",)),)
    space = SearchSpace(
        [
            Parameter("rate", Kind.FLOAT, low=1e-3, high=1e-1, sampling="log"),
            Parameter("optimizer", Kind.CHOICE, values=("adam", "sgd")),
            Parameter("momentum", Kind.FLOAT, low=0.0, high=0.9, conditions=sgd),
        ]
    )
    assert space.size is None
    grid = space.grid({"rate": [0.1, 0.001, 0.1], "momentum": (0.0, 0.9)})
    assert list(grid) == [
        {"rate": 0.1, "optimizer": "adam"},
        {"rate": 0.1, "optimizer": "sgd", "momentum": 0.0},
        {"rate": 0.1, "optimizer": "sgd", "momentum": 0.9},
        {"rate": 0.001, "optimizer": "adam"},
        {"rate": 0.001, "optimizer": "sgd", "momentum": 0.0},
        {"rate": 0.001, "optimizer": "sgd", "momentum": 0.9},
    ]


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ({}, "'rate' is a float without a step .* GRID"),
        ({"rate": [2.0]}, r"'rate' = 2.0 is outside the space: allowed is float 0.0\.\.1.0"),
        ({"rate": []}, "'rate'.* at least one level"),
        ({"rate": "0.1"}, "'rate'.* at least one level"),
        ({"rate": [0.1], "speed": [1]}, "'speed', which is not in the space"),
    ],
)
def test_a_grid_that_cannot_be_is_refused_by_name(levels: dict[str, Any], message: str) -> None:
    rate = Parameter("rate", Kind.FLOAT, low=0.0, high=1.0)
    with pytest.raises(SpaceError, match=message):
        SearchSpace([rate]).grid(levels)


# --- names and conditions -----------------------------------------------------------------


def _branch(*values: str) -> tuple[Condition, ...]:
    return (Condition("kind", values),)


KINDS = Parameter("kind", Kind.CHOICE, values=("a", "b", "c"))


def test_one_name_with_two_ranges_needs_branches_that_exclude_each_other() -> None:
    small, large = an_int(1, 4, 1), an_int(5, 9, 1)
    apart = SearchSpace(
        [
            KINDS,
            dataclasses.replace(small, conditions=_branch("a", "c")),
            dataclasses.replace(large, conditions=_branch("b")),
        ]
    )
    assert apart.size == 4 + 5 + 4
    for first, second in [(_branch("a", "c"), _branch("b", "c")), ((), _branch("b")), ((), ())]:
        with pytest.raises(SpaceError, match=r"'n' is declared twice.*1\.\.4.*5\.\.9"):
            SearchSpace(
                [
                    KINDS,
                    dataclasses.replace(small, conditions=first),
                    dataclasses.replace(large, conditions=second),
                ]
            )


def test_one_name_with_one_range_may_be_declared_in_branches_that_overlap() -> None:
    units = an_int(1, 4, 1)
    space = SearchSpace(
        [
            KINDS,
            dataclasses.replace(units, conditions=_branch("a", "b")),
            dataclasses.replace(units, conditions=_branch("b", "c")),
        ]
    )
    assert space.size == 3 * 4


def test_a_parent_must_come_first() -> None:
    child = dataclasses.replace(an_int(1, 4, 1), conditions=_branch("a"))
    with pytest.raises(SpaceError, match=r"'n' depends on 'kind'.*before"):
        SearchSpace([child, KINDS])


# --- without TensorFlow -------------------------------------------------------------------

LEAN = """
import sys
from hpo.discovery import discover
from hpo.hyperparameters import from_hyperparameters, hyperparameters_class, messages
hp = hyperparameters_class()()
kind = hp.Choice("kind", ["a", "b"])
with hp.conditional_scope("kind", ["b"]):
    assert hp.Int("units", 1, 8) is None
assert [p.name for p in from_hyperparameters(hp).parameters] == ["kind", "units"]
assert hp.copy().get_config() == hp.get_config()
assert discover(lambda hp: hp.Boolean("b") and hp.Int("n", 1, 3)).size == 6
proto, service, calls = messages()
assert proto.Trial.DESCRIPTOR.name == "Trial"
loaded = {name.partition(".")[0] for name in sys.modules}
assert not loaded & {"tensorflow", "keras", "keras_tuner", "numpy"}, sorted(loaded)
"""

AFTERWARDS = """
import keras_tuner
assert hyperparameters_class() is keras_tuner.HyperParameters
real = keras_tuner.HyperParameters.from_config(hp.get_config())
real.values["kind"] = "b"
with real.conditional_scope("kind", ["b"]):
    real.values["units"] = 3
    assert real.Int("units", 1, 8) == 3
assert from_hyperparameters(real) == from_hyperparameters(hp)
assert keras_tuner.RandomSearch.__name__ == "RandomSearch"
"""


@functools.cache
def _run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )


def test_hyperparameters_load_without_tensorflow() -> None:
    done = _run(LEAN)
    assert done.returncode == 0, done.stderr


def test_the_real_package_still_loads_afterwards() -> None:
    done = _run(LEAN + AFTERWARDS)
    assert done.returncode == 0, done.stderr
