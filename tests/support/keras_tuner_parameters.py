"""Parameters by hand and generated ones, for tests that hold them against KerasTuner's own."""

from __future__ import annotations

import math
import random
import types
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from hpo.hyperparameters import to_hyperparameters
from hpo.parameter import Kind, Parameter
from hpo.space import SearchSpace
from tests.support import space_strategies as spaces

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


def a_float(low: float, high: float, step: float | None, sampling: str = "linear") -> Parameter:
    return Parameter("n", Kind.FLOAT, low, low=low, high=high, step=step, sampling=sampling)


def an_int(low: int, high: int, step: int | None = None, sampling: str = "linear") -> Parameter:
    return Parameter("n", Kind.INT, low=low, high=high, step=step, sampling=sampling)


def theirs(kt: types.ModuleType, parameter: Parameter) -> Any:
    """KerasTuner's own object for ``parameter``."""
    return to_hyperparameters(SearchSpace([parameter]), {}).space[0]
