"""The grid of a space: every point once, and nothing enumerated that is vast."""

from __future__ import annotations

import dataclasses
import itertools
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo.errors import SpaceError
from hpo.parameter import Condition, Kind, Parameter
from hpo.space import SearchSpace
from tests.support import space_strategies as spaces
from tests.support.keras_tuner_parameters import an_int, few, seeds


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


def test_what_no_point_activates_has_no_part_in_the_grid() -> None:
    never = Parameter("x", Kind.FLOAT, 0.0, low=0.0, high=1.0, conditions=(Condition("n", (3,)),))
    space = SearchSpace([dataclasses.replace(an_int(1, 2, 1), name="n"), never])
    assert list(space.grid()) == [{"n": 1}, {"n": 2}]
    assert space.size == 2 and space.reachable == space.parameters[:1]
    with pytest.raises(SpaceError, match="'y', which is not in the space"):
        space.grid({"y": [0.5]})


some_conditions = st.lists(
    st.tuples(st.integers(0, 4), st.sets(st.integers(1, 4), min_size=1, max_size=2)), max_size=3
)


@few
@given(drawn=st.lists(some_conditions, min_size=1, max_size=5))
def test_a_parameter_is_reachable_where_some_point_has_it(
    drawn: list[list[tuple[int, set[int]]]],
) -> None:
    made: list[Parameter] = []
    for number, rows in enumerate(drawn):
        parents = ((f"n{place}", tuple(sorted(values))) for place, values in rows if place < number)
        conditions = tuple(Condition(*parent) for parent in parents)
        made.append(dataclasses.replace(an_int(1, 3, 1), name=f"n{number}", conditions=conditions))
    space = SearchSpace(made)
    active = {name for point in spaces.brute_force(space) for name in point}
    assert {parameter.name for parameter in space.reachable} == active


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
