"""Spaces and points, held against KerasTuner's own classes."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import pathlib
import random
import subprocess
import sys
import types
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo.errors import SpaceError
from hpo.hyperparameters import from_hyperparameters, to_config, to_hyperparameters
from hpo.parameter import Condition, Kind, Parameter
from hpo.space import SearchSpace
from tests.support import space_strategies as spaces
from tests.support.cli_runs import PATIENCE_S
from tests.support.keras_tuner_parameters import a_float, an_int, few, seeds, some

ROOT = pathlib.Path(__file__).resolve().parents[2]


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
from hpo.hyperparameters import from_hyperparameters
from hpo.keras_tuner_parts import hyperparameters_class, messages
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
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S
    )


def test_hyperparameters_load_without_tensorflow() -> None:
    done = _run(LEAN)
    assert done.returncode == 0, done.stderr


def test_the_real_package_still_loads_afterwards() -> None:
    done = _run(LEAN + AFTERWARDS)
    assert done.returncode == 0, done.stderr
