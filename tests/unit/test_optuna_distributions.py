"""The search space in Optuna's terms: every point there and back, and only points of the space."""

from __future__ import annotations

import math
import random
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from hpo.parameter import Condition, Kind, Parameter
from hpo.samplers.optuna.distributions import (
    distribution_of,
    encode,
    from_optuna,
    key_of,
    suggest,
    to_optuna,
)
from hpo.space import SearchSpace
from hpo.trial import Params, Value
from tests.support import space_strategies as spaces

optuna.logging.set_verbosity(optuna.logging.WARNING)
some = settings(max_examples=60, deadline=None)


def _same(one: Params, other: Params, space: SearchSpace) -> bool:
    """Equal, to the last bits of a logarithm where one of them lies between."""
    lossy = {p.name for p in space.parameters if p.kind is Kind.FLOAT and p.step is None}
    return list(one) == list(other) and all(
        one[n] == other[n] or (n in lossy and _close(one[n], other[n])) for n in one
    )


def _close(one: Value, other: Value) -> bool:
    # Under the same name another branch may have words.
    return isinstance(one, float) and math.isclose(one, float(other), rel_tol=1e-9)


@some
@given(space=spaces.spaces(), seed=st.integers(0, 99))
def test_what_optuna_suggests_is_a_point_and_comes_back(space: SearchSpace, seed: int) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    for _ in range(3):
        trial = study.ask()
        params = suggest(space, trial)
        space.validate(params)
        values, distributions = encode(space, params)
        assert distributions == trial.distributions
        assert _same(suggest(space, optuna.trial.FixedTrial(values)), params, space)


@some
@given(space=spaces.spaces(), seed=st.integers(0, 99))
def test_a_point_of_ours_is_one_that_optuna_takes(space: SearchSpace, seed: int) -> None:
    params = space.sample(random.Random(seed))
    values, distributions = encode(space, params)
    trial = optuna.trial.create_trial(value=0.0, params=values, distributions=distributions)
    study = optuna.create_study()
    study.add_trial(trial)
    assert _same(suggest(space, optuna.trial.FixedTrial(study.trials[0].params)), params, space)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"low": 6, "high": 13, "step": 3}, IntDistribution(6, 12, step=3)),
        ({"low": 0, "high": 2**62, "step": 1000}, IntDistribution(0, 2**62 // 1000)),
        ({"low": 1, "high": 64, "sampling": "log"}, IntDistribution(1, 64, log=True)),
        ({"low": 1, "high": 64, "step": 2, "sampling": "log"}, IntDistribution(0, 6)),
        ({"low": 1, "high": 64, "sampling": "reverse_log"}, FloatDistribution(0, 1)),
        ({"kind": Kind.FLOAT, "low": 0.0, "high": 1.0}, FloatDistribution(0, 1)),
        (
            {"kind": Kind.FLOAT, "low": 0.1, "high": 1.0, "sampling": "log"},
            FloatDistribution(0.1, 1.0, log=True),
        ),
        ({"kind": Kind.FLOAT, "low": 0.0, "high": 1.0, "step": 0.2}, IntDistribution(0, 5)),
        (
            {"kind": Kind.FLOAT, "low": 0.1, "high": 1.0, "sampling": "reverse_log"},
            FloatDistribution(0, 1),
        ),
        ({"kind": Kind.CHOICE, "values": (4, 8), "ordered": True}, IntDistribution(0, 1)),
        ({"kind": Kind.CHOICE, "values": ("a", "b")}, CategoricalDistribution([0, 1])),
        ({"kind": Kind.BOOLEAN}, CategoricalDistribution([0, 1])),
    ],
)
def test_each_kind_has_its_distribution_and_both_its_ends(
    fields: dict[str, Any], expected: optuna.distributions.BaseDistribution
) -> None:
    parameter = Parameter(**{"name": "it", "kind": Kind.INT, **fields})
    assert distribution_of(parameter) == expected
    low, high = parameter.from_unit(0.0), parameter.from_unit(1.0)
    for end in (low, high):
        inside = to_optuna(parameter, end)
        assert expected._contains(expected.to_internal_repr(inside))
        assert from_optuna(parameter, inside) == end
    if not isinstance(expected, CategoricalDistribution):
        assert from_optuna(parameter, expected.low) == low
        assert from_optuna(parameter, expected.high) == high


def test_one_name_in_two_branches_is_two_parameters_for_optuna() -> None:
    branches = [
        Parameter("units", Kind.INT, low=1, high=high, conditions=(Condition("deep", (deep,)),))
        for deep, high in ((True, 9), (False, 3))
    ]
    assert len({key_of(parameter) for parameter in branches}) == 2
    assert key_of(Parameter("units", Kind.INT, low=1, high=2)) == "units"
