"""A parameter's values from probabilities, held against KerasTuner's own."""

from __future__ import annotations

import collections
import itertools
import math
import types
from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hpo.errors import SpaceError
from hpo.hyperparameters import from_hyperparameters
from hpo.parameter import Kind, Parameter
from hpo.space import SearchSpace
from tests.support import space_strategies as spaces
from tests.support.keras_tuner_parameters import (
    BELOW_ONE,
    a_float,
    an_int,
    finite_ones,
    numerics,
    some,
    theirs,
)


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
    with pytest.raises(SpaceError, match=r"'rate' has -?inf among its values"):
        from_hyperparameters(hp)


@pytest.mark.parametrize("step", [0, -1])
def test_a_step_that_leads_nowhere_is_refused(kt: types.ModuleType, step: int) -> None:
    hp = kt.HyperParameters()
    hp.Int("units", 1, 8, step=step)
    with pytest.raises(SpaceError, match=r"'units' has step .* positive"):
        from_hyperparameters(hp)
