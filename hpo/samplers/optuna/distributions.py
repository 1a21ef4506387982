"""The search space in Optuna's terms, and its points there and back.

Optuna draws a point define by run: each parameter that is active at the values so far is
suggested in its turn. A parameter is known to it by its name and its conditions, since one
name may have other ranges in another branch, and Optuna allows it only one distribution.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from hpo.parameter import Kind, Parameter
from hpo.space import SearchSpace
from hpo.trial import Params, Value

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


# Up to here a float holds every integer.
_EXACT = 2**53


class Suggests(Protocol):
    """What is used of an ``optuna.Trial``."""

    def suggest_categorical(self, name: str, choices: Any) -> Any: ...
    def suggest_float(self, name: str, low: float, high: float, *, log: bool = ...) -> float: ...
    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = ..., log: bool = ...
    ) -> int: ...


def suggest(space: SearchSpace, trial: Suggests) -> Params:
    """The point of ``space`` that ``trial`` suggests; always a valid one."""
    return space.draw(
        lambda p: p.initial if p.kind is Kind.FIXED else from_optuna(p, _suggested(p, trial))
    )


def encode(
    space: SearchSpace, params: Mapping[str, Value]
) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
    """A point as an Optuna trial has it: its values and their distributions, by key."""
    values: dict[str, Any] = {}
    distributions: dict[str, BaseDistribution] = {}

    def note(parameter: Parameter) -> Value:
        value = params[parameter.name]
        if parameter.kind is not Kind.FIXED:
            key = key_of(parameter)
            values[key] = to_optuna(parameter, value)
            distributions[key] = distribution_of(parameter)
        return value

    space.draw(note)
    return values, distributions


def key_of(parameter: Parameter) -> str:
    """What Optuna knows a parameter by: its name, and its conditions where it has any."""
    if not parameter.conditions:
        return parameter.name
    listed = [f"{c.name}={json.dumps(c.values)}" for c in parameter.conditions]
    return f"{parameter.name} if {' and '.join(listed)}"


def distribution_of(parameter: Parameter) -> BaseDistribution:
    """The Optuna distribution of a parameter that is not fixed."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if _is_unordered(parameter):
        return CategoricalDistribution(_choices(parameter))
    low, high = _ends(parameter)
    log = _is_log(parameter)
    if _is_real(parameter):
        return FloatDistribution(float(low), float(high), log=log)
    return IntDistribution(int(low), int(high), log=log, step=_step(parameter))


def to_optuna(parameter: Parameter, value: Value) -> int | float:
    """A parameter's value as Optuna has it; :func:`from_optuna` gives it back."""
    if _by_index(parameter):
        return parameter.index(value)
    if _by_unit(parameter):
        return parameter.to_unit(value)
    assert not isinstance(value, str)
    return value


def from_optuna(parameter: Parameter, value: int | float) -> Value:
    """The parameter's value that Optuna's stands for."""
    if _by_index(parameter):
        return parameter.level(int(value))
    # Optuna's ends are ours, save for what a logarithm loses on its way back.
    return parameter.from_unit(value) if _by_unit(parameter) else parameter.nearest(value)


def _suggested(parameter: Parameter, trial: Suggests) -> int | float:
    key = key_of(parameter)
    if _is_unordered(parameter):
        index: int = trial.suggest_categorical(key, _choices(parameter))
        return index
    low, high = _ends(parameter)
    log = _is_log(parameter)
    if _is_real(parameter):
        return trial.suggest_float(key, float(low), float(high), log=log)
    return trial.suggest_int(key, int(low), int(high), step=_step(parameter), log=log)


def _by_unit(parameter: Parameter) -> bool:
    """Whether Optuna draws a cumulative probability: it has nothing like ``reverse_log``."""
    return parameter.numeric and parameter.step is None and parameter.sampling == "reverse_log"


def _by_index(parameter: Parameter) -> bool:
    """Whether Optuna draws a place in the list of values.

    It cannot tell True from 1 among choices, leaves dust on a float's steps and on those of
    integers that a float does not hold exactly, and has no logarithmic ones.
    """
    if not parameter.numeric:
        return True
    is_whole = parameter.kind is Kind.INT and parameter.sampling == "linear"
    return parameter.step is not None and not (is_whole and _is_exact(parameter))


def _is_exact(parameter: Parameter) -> bool:
    assert parameter.low is not None and parameter.high is not None
    return parameter.step == 1 or -_EXACT <= parameter.low <= parameter.high <= _EXACT


def _is_unordered(parameter: Parameter) -> bool:
    return not parameter.numeric and not parameter.ordered


def _choices(parameter: Parameter) -> list[int]:
    assert parameter.count is not None
    return list(range(parameter.count))


def _is_real(parameter: Parameter) -> bool:
    if _by_index(parameter):
        return False
    return parameter.kind is Kind.FLOAT or _by_unit(parameter)


def _is_log(parameter: Parameter) -> bool:
    return parameter.sampling == "log" and not _by_index(parameter)


def _step(parameter: Parameter) -> int:
    return 1 if _by_index(parameter) or parameter.step is None else int(parameter.step)


def _ends(parameter: Parameter) -> tuple[int | float, int | float]:
    """Optuna's lower and upper end, both included; the upper one lies on the lattice."""
    if _by_unit(parameter):
        return 0.0, 1.0
    count = parameter.count
    if _by_index(parameter):
        assert count is not None
        return 0, count - 1
    assert parameter.low is not None and parameter.high is not None
    if count is None:
        return parameter.low, parameter.high
    last = parameter.level(count - 1)
    assert not isinstance(last, str)
    return parameter.low, last
