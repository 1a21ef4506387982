"""What the engines bring of their own, held against the space and against our grid.

Ray's are asked in this process: nothing of Ray is started.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo.errors import SpaceError
from hpo.parameter import Condition, Kind, Parameter
from hpo.registry import SAMPLERS, owner_of
from hpo.space import SearchSpace
from tests.conformance.test_sampler_conformance import DRAWN, draws_as_keras_tuner_does
from tests.conformance.test_samplers import Search
from tests.support import space_strategies as spaces

NATIVE = [name for name in SAMPLERS if owner_of(name) in ("ray", "optuna")]
GRIDS = [name for name in NATIVE if name.endswith(":grid")]
RANDOM = [name for name in NATIVE if name not in GRIDS]
some = settings(max_examples=15, deadline=None)
few_levels = st.lists(
    st.one_of(spaces.ints("", 3), spaces.stepped_floats("", 3), spaces.choices("", 3)),
    min_size=1,
    max_size=3,
)


@pytest.mark.parametrize("name", RANDOM)
@some
@given(space=spaces.spaces(), seed=st.integers(0, 9))
def test_every_point_of_any_space_is_valid(name: str, space: SearchSpace, seed: int) -> None:
    search = Search(name, spaces.a_study(space), seed)
    for point in search.run(14, running=3):
        space.validate(point)
    assert len(search.points) == 14


@pytest.mark.parametrize("name", RANDOM)
def test_both_ends_of_each_range_are_reached(name: str) -> None:
    ends = SearchSpace(
        [
            Parameter("linear", Kind.INT, low=1, high=4, step=1),
            Parameter("thirds", Kind.INT, low=10, high=20, step=4),
            Parameter("log", Kind.INT, low=1, high=4, sampling="log"),
            Parameter("steps", Kind.FLOAT, 0.1, low=0.1, high=0.5, step=0.2),
            Parameter("powers", Kind.INT, low=1, high=8, step=2, sampling="log"),
            Parameter("mirrored", Kind.INT, low=1, high=4, sampling="reverse_log"),
        ]
    )
    found = Search(name, spaces.a_study(ends)).run(120, running=9999)
    for parameter in ends.parameters:
        assert {point[parameter.name] for point in found} == set(parameter.levels()), parameter


@pytest.mark.parametrize("name", ["ray:random", "optuna:random"])
def test_random_of_an_engines_own_draws_alike(name: str) -> None:
    """But for integers on a logarithmic scale without a step, which each rounds in its way."""
    alike = [p for p in DRAWN if p.kind is not Kind.INT or p.step is not None]
    draws_as_keras_tuner_does(name, alike)


@pytest.mark.parametrize("name", GRIDS)
@some
@given(parameters=few_levels, at=st.integers(0, 9))
def test_a_grid_is_ours_also_after_a_restart(
    name: str, parameters: list[Parameter], at: int
) -> None:
    named = [spaces.renamed(p, f"p{number}") for number, p in enumerate(parameters)]
    study = spaces.a_study(SearchSpace(named))
    search = Search(name, study)
    search.run(at, running=2)
    search.restart()
    found = [spaces.frozen(point) for point in search.run(9999)]
    expected = [spaces.frozen(point) for point in study.space.grid()]
    assert len(found) == len(expected) and set(found) == set(expected)


def test_rays_grid_refuses_by_name_what_it_cannot_express() -> None:
    deep = (Condition("kind", ("b",)),)
    kind = Parameter("kind", Kind.CHOICE, "a", values=("a", "b"))
    below = Parameter("units", Kind.INT, low=1, high=4, step=1, conditions=deep)
    refuse = SAMPLERS.load("ray:grid").check
    with pytest.raises(SpaceError, match="'units' is active only for some values of 'kind'"):
        refuse(spaces.a_study(SearchSpace([kind, below])))
    rate = Parameter("rate", Kind.FLOAT, 0.1, low=0.0, high=1.0)
    with pytest.raises(SpaceError, match="'rate' is a float without a step"):
        refuse(spaces.a_study(SearchSpace([rate])))


@pytest.mark.parametrize("name", ["ray:grid", "optuna:grid", "grid"])
def test_a_value_that_is_listed_twice_is_tried_once(name: str) -> None:
    space = SearchSpace([Parameter("kind", Kind.CHOICE, "a", values=("a", "a", "b"))])
    found = Search(name, spaces.a_study(space)).run(9, running=2)
    assert sorted(str(point["kind"]) for point in found) == ["a", "b"]


def test_rays_optuna_learns() -> None:
    """It proposes what a TPE does that is told the same: late points are better than early ones."""
    space = SearchSpace([Parameter(x, Kind.FLOAT, 0.0, low=0.0, high=1.0) for x in ("x", "y")])
    search = Search("ray:optuna", spaces.a_study(space), random.Random(3).randrange(99))
    while len(search.records) < 60 and search.ask():
        (trial,) = search.pending()
        away = sum((float(trial.params[x]) - 0.7) ** 2 for x in ("x", "y"))
        search.end(trial.trial_id, value=away)
    late = [abs(float(point[x]) - 0.7) for point in search.points[40:] for x in ("x", "y")]
    assert sum(late) / len(late) < 0.17
