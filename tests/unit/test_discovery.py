"""Search spaces read out of the code that uses them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given, settings

from hpo import discovery
from hpo.discovery import discover
from hpo.errors import SpaceError
from hpo.parameter import Kind
from hpo.space import SearchSpace
from tests.support import space_strategies as spaces

OPTIMIZERS = ["adam", "sgd", "rmsprop"]


@pytest.fixture(scope="session", autouse=True)
def _real_kerastuner() -> None:
    """Once the real package is loaded, its class is the one that is used."""
    importlib.import_module("keras_tuner")


class Counted:
    """A person's function that counts how often it is run."""

    def __init__(self, use: Callable[[Any], object]) -> None:
        self._use = use
        self.runs = 0

    def __call__(self, hp: Any) -> None:
        self.runs += 1
        self._use(hp)


def names(use: Callable[[Any], object]) -> list[str]:
    return [p.name for p in discover(use).parameters]


@settings(max_examples=40, deadline=None)
@given(space=spaces.spaces())
def test_what_is_declared_is_what_is_found(space: SearchSpace) -> None:
    assert discover(lambda hp: spaces.declare(space, hp)) == space


@settings(max_examples=40, deadline=None)
@given(space=spaces.spaces())
def test_what_stands_behind_plain_conditions_is_found_too(space: SearchSpace) -> None:
    by_name = {p.name: p for p in space.parameters}
    assume(len(by_name) == len(space.parameters))
    # Of an integer only its default and its upper end are tried.
    for parent, values in (
        (by_name[c.name], c.values) for p in by_name.values() for c in p.conditions
    ):
        ends = parent.initial, parent.from_unit(1.0)
        assume(parent.kind is not Kind.INT or set(ends) & set(values))

    def use(hp: Any) -> None:
        for parameter in space.parameters:
            if parameter.active(hp.values):
                spaces.declare_one(parameter, hp)

    assert set(names(use)) == set(by_name)


def test_nested_scopes() -> None:
    def use(hp: Any) -> None:
        with hp.name_scope("top"):
            hp.Choice("kind", ["none", "dense", "conv"])
            with hp.conditional_scope("kind", ["dense", "conv"]):
                hp.Choice("kernel", ["small", "large"])
                with hp.conditional_scope("kernel", ["large"]):
                    hp.Boolean("pooled")
                    with hp.conditional_scope("pooled", [True]):
                        hp.Int("stride", 1, 3)

    space = discover(use)
    by_name = {p.name: p for p in space.parameters}
    assert list(by_name) == ["top/kind", "top/kernel", "top/pooled", "top/stride"]
    stride = by_name["top/stride"]
    assert [c.name for c in stride.conditions] == ["top/kind", "top/kernel", "top/pooled"]
    assert space.size == 1 + 2 * (1 + 1 + 3)


def test_a_scope_whose_code_runs_only_when_active() -> None:
    def use(hp: Any) -> None:
        kind = hp.Choice("kind", ["mlp", "cnn"])
        with hp.conditional_scope("kind", ["cnn"]):
            if kind == "cnn" and hp.Boolean("deep"):
                hp.Int("filters", 8, 64, step=8)

    assert names(use) == ["kind", "deep", "filters"]


def test_a_loop_whose_length_is_tuned() -> None:
    def use(hp: Any) -> None:
        for i in range(hp.Int("layers", 1, 5)):
            hp.Int(f"units_{i}", 8, 64, step=8)

    assert names(use) == ["layers", *(f"units_{i}" for i in range(5))]


def test_plain_conditions_within_plain_conditions() -> None:
    def use(hp: Any) -> None:
        optimizer = hp.Choice("optimizer", OPTIMIZERS)
        if optimizer == "sgd" and hp.Boolean("nesterov"):
            hp.Float("momentum", 0.1, 0.9)
        if optimizer == "rmsprop":
            for i in range(hp.Int("terms", 0, 2)):
                if hp.Choice(f"form_{i}", ["l1", "l2"]) == "l2":
                    hp.Float(f"weight_{i}", 1e-4, 1e-1, sampling="log")

    found = names(use)
    assert sorted(found) == [
        "form_0", "form_1", "momentum", "nesterov", "optimizer", "terms", "weight_0", "weight_1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "kind"), [((0.1, 0.01), "Choice"), (("a", "b"), "Choice"), ((3, 5), "Choice")]
)
def test_a_choice_may_be_given_as_a_tuple(values: tuple[Any, ...], kind: str) -> None:
    space = discover(lambda hp: (hp.Choice("c", values), hp.Boolean("b")))
    assert space.parameters[0].values == values


def test_a_choice_of_truths_is_one_of_numbers_as_in_kerastuner() -> None:
    (choice,) = discover(lambda hp: hp.Choice("c", [True, False])).parameters
    assert [type(value) for value in choice.values] == [int, int]


# --- how often the code is run ------------------------------------------------------------


def test_twenty_branches_take_one_run_each() -> None:
    def use(hp: Any) -> None:
        models = [f"model-{i}" for i in range(20)]
        hp.Choice("model", models)
        for i, model in enumerate(models):
            with hp.conditional_scope("model", [model]):
                hp.Int(f"width_{i}", 1, 9)

    counted = Counted(use)
    assert len(discover(counted).parameters) == 21
    assert counted.runs <= 22


@pytest.mark.parametrize("tuned_length", [False, True])
def test_layers_of_three_types_take_few_runs(tuned_length: bool) -> None:
    types_of_layers = ["dense", "conv", "pool"]

    def use(hp: Any) -> None:
        for i in range(hp.Int("layers", 1, 8) if tuned_length else 8):
            kind = hp.Choice(f"type_{i}", types_of_layers)
            for other in types_of_layers:
                with hp.conditional_scope(f"type_{i}", [other]):
                    if kind == other:
                        hp.Int(f"{other}_{i}", 1, 9)

    counted = Counted(use)
    assert len(discover(counted).parameters) == tuned_length + 8 * 4
    assert counted.runs <= 12


def test_a_loop_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "_MOST_RUNS", 50)

    def use(hp: Any) -> None:
        i = 0
        while hp.Boolean(f"more_{i}"):
            i += 1

    counted = Counted(use)
    with pytest.raises(SpaceError, match=r"'more_.*put a bound on the loop"):
        discover(counted)
    assert counted.runs == 50


# --- what is refused, and what is not -----------------------------------------------------


def test_another_range_for_the_same_name_is_refused() -> None:
    def use(hp: Any) -> None:
        hp.Int("units", 1, 4)
        hp.Int("units", 1, 8)

    with pytest.raises(SpaceError, match=r"'units' is declared as .*4.* and again as .*8"):
        discover(use)


def test_a_range_that_depends_on_another_value_is_refused() -> None:
    with pytest.raises(SpaceError, match="'b' is declared as"):
        discover(lambda hp: hp.Int("b", 1, 4 * hp.Int("a", 1, 2)))


def test_the_same_declaration_twice_is_one() -> None:
    space = discover(lambda hp: [hp.Float("rate", 0, 1, step=0.5) for _ in range(2)])
    assert [p.describe() for p in space.parameters] == ["float 0.0..1.0 step 0.5"]


def test_ranges_that_overlap_in_two_branches_are_refused() -> None:
    def use(hp: Any) -> None:
        hp.Choice("kind", ["a", "b"])
        hp.Int("units", 1, 4)
        with hp.conditional_scope("kind", ["b"]):
            hp.Int("units", 5, 8)

    with pytest.raises(SpaceError, match="'units' is declared twice"):
        discover(use)


@pytest.mark.parametrize("values", [["typo"], ["typo", "b"]])
def test_a_scope_that_can_never_be_active_ends_the_search(values: list[str]) -> None:
    def use(hp: Any) -> None:
        hp.Choice("kind", ["a", "b"])
        with hp.conditional_scope("kind", values):
            hp.Int("units", 1, 4)

    space = discover(use)
    assert [p.name for p in space.parameters] == ["kind", "units"]
    assert space.size == (2 if values == ["typo"] else 1 + 4)


def test_a_scope_is_entered_by_the_first_value_that_its_parent_can_have() -> None:
    def use(hp: Any) -> None:
        layers = hp.Int("layers", 1, 5)
        with hp.conditional_scope("layers", [99, 3]):
            if layers == 3:
                hp.Boolean("odd")

    assert names(use) == ["layers", "odd"]


def test_a_name_with_two_ranges_never_has_a_value_of_the_other() -> None:
    seen = set()

    def use(hp: Any) -> None:
        hp.Choice("kind", ["a", "b"])
        with hp.conditional_scope("kind", ["a"]):
            small = hp.Int("n", 1, 3)
        with hp.conditional_scope("kind", ["b"]):
            large = hp.Choice("n", [10, 20])
            with hp.conditional_scope("n", [2, 20]):
                if large == 20:
                    hp.Boolean("extra")
        seen.add((small, large))

    assert names(use) == ["kind", "n", "n", "extra"]
    assert seen == {(1, None), (3, None), (None, 10), (None, 20)}


def test_scopes_that_exclude_each_other_end_the_search() -> None:
    def use(hp: Any) -> None:
        kind = hp.Choice("kind", ["a", "b"])
        if kind == "a":
            hp.Boolean("deep")
            with hp.conditional_scope("deep", [True]):
                hp.Int("units", 1, 4)
        if kind == "b" and "deep" in hp.values:
            hp.Boolean("deep")
            with hp.conditional_scope("deep", ["never"]):
                hp.Int("other", 1, 4)

    assert set(names(use)) == {"kind", "deep", "units", "other"}


def test_what_the_code_raises_at_its_defaults_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        discover(lambda hp: 1 / hp.Int("n", 0, 3))


def test_what_a_scope_raises_is_raised() -> None:
    def use(hp: Any) -> None:
        kind = hp.Choice("kind", ["a", "b"])
        with hp.conditional_scope("kind", ["b"]):
            if kind == "b":
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        discover(use)


def test_a_corner_that_is_no_model_refuses_neither_itself_nor_a_scope() -> None:
    def use(hp: Any) -> None:
        kind = hp.Choice("kind", ["a", "b", "c"])
        layers = hp.Int("layers", 1, 9)
        if layers > 5:
            raise ValueError("nothing is left to pool")
        with hp.conditional_scope("kind", ["b"]):
            if kind == "b":
                hp.Boolean("deep")
        if kind == "c" and hp.Boolean("wide"):
            hp.Int("units", 1, 4)

    assert names(use) == ["kind", "layers", "deep", "wide", "units"]
