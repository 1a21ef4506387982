"""The search space: ordered hyperparameters, their conditions and points."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from hpo.errors import SpaceError
from hpo.grid import Grid
from hpo.parameter import Condition, Kind, Parameter
from hpo.reachable import reachable
from hpo.trial import Params, Value


class SearchSpace:
    """Hyperparameters in the order of their declaration; immutable.

    A parameter is known by its name and its conditions; values are keyed by name alone, so
    two that share a name must never be active together unless they are alike. Raises
    SpaceError where they could, or where a condition's parent is not declared before it.
    """

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        self.parameters = tuple(parameters)
        _check_parents(self.parameters)
        _check_names(self.parameters)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SearchSpace) and self.parameters == other.parameters

    def __hash__(self) -> int:
        return hash(self.parameters)

    def __repr__(self) -> str:
        return f"SearchSpace({', '.join(p.name for p in self.parameters)})"

    @property
    def tunable(self) -> tuple[Parameter, ...]:
        """The parameters that a search can vary."""
        return tuple(p for p in self.parameters if p.kind is not Kind.FIXED)

    @functools.cached_property
    def reachable(self) -> tuple[Parameter, ...]:
        """The parameters that some point activates; the others take no part in a search."""
        return reachable(self.parameters)

    def draw(self, choose: Callable[[Parameter], Value]) -> Params:
        """A point: ``choose`` is asked, in order, for the value of each active parameter."""
        params: Params = {}
        for parameter in self.parameters:
            if parameter.name not in params and parameter.active(params):
                params[parameter.name] = choose(parameter)
        return params

    def sample(self, rng: random.Random) -> Params:
        """A random point: the active parameters alone, each by its own distribution."""
        return self.draw(lambda parameter: parameter.from_unit(rng.random()))

    def defaults(self) -> Params:
        """The point that a model gets where nothing is tuned."""
        return self.draw(lambda parameter: parameter.initial)

    def validate(self, params: Mapping[str, Any]) -> None:
        """Raises SpaceError unless ``params`` holds a valid value for each active parameter."""

        def given(parameter: Parameter) -> Value:
            name = parameter.name
            if name not in params:
                raise SpaceError(f"no value for {name!r}, which is active at {dict(params)!r}")
            parameter.check(params[name])
            return params[name]  # type: ignore[no-any-return]

        active = self.draw(given)
        for name in params:
            if name not in active:
                known = any(p.name == name for p in self.parameters)
                why = "is inactive there" if known else "is not in the space"
                raise SpaceError(f"{name!r} {why}: take it out of {dict(params)!r}")

    def grid(self, levels: Mapping[str, Sequence[Value]] | None = None) -> Grid:
        """The grid over every level; ``levels`` replaces those of the parameters it names.

        Raises SpaceError where it names others, or a parameter has no levels.
        """
        known = {parameter.name for parameter in self.parameters}
        if unknown := sorted(set(levels or {}) - known):
            raise SpaceError(f"GRID names {unknown[0]!r}, which is not in the space")
        return Grid(self.reachable, levels or {})

    @property
    def size(self) -> int | None:
        """How many distinct points there are; None where a float has no step."""
        if any(p.count is None for p in self.reachable):
            return None
        return self.grid().size

    def digest(self) -> str:
        """A hash of the whole space, the same on every machine."""
        text = json.dumps(self.to_json(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_json(self) -> list[dict[str, Any]]:
        """The space as JSON; :meth:`from_json` gives an equal one back."""
        return [dataclasses.asdict(parameter) for parameter in self.parameters]

    @classmethod
    def from_json(cls, rows: Sequence[Mapping[str, Any]]) -> Self:
        """A space from what :meth:`to_json` gave."""
        return cls([_parameter_from_json(row) for row in rows])


def _check_parents(parameters: Sequence[Parameter]) -> None:
    declared: set[str] = set()
    for parameter in parameters:
        for condition in parameter.conditions:
            if condition.name not in declared:
                raise SpaceError(
                    f"{parameter.name!r} depends on {condition.name!r}, which is not declared "
                    "before it: declare the parent first"
                )
        declared.add(parameter.name)


def _check_names(parameters: Sequence[Parameter]) -> None:
    by_name: dict[str, list[Parameter]] = {}
    for parameter in parameters:
        for other in by_name.setdefault(parameter.name, []):
            alike = dataclasses.replace(other, conditions=()) == dataclasses.replace(
                parameter, conditions=()
            )
            if not alike and not _exclusive(parameter, other):
                raise SpaceError(
                    f"{parameter.name!r} is declared twice, as {other.describe()} and as "
                    f"{parameter.describe()}, and both can be active at once: rename one, or "
                    "put them under conditions that exclude each other"
                )
        by_name[parameter.name].append(parameter)


def _exclusive(one: Parameter, other: Parameter) -> bool:
    """Whether some parent would need two values at once for both to be active."""
    return any(
        a.name == b.name and not set(a.values) & set(b.values)
        for a in one.conditions
        for b in other.conditions
    )


def _parameter_from_json(row: Mapping[str, Any]) -> Parameter:
    conditions = tuple(Condition(c["name"], tuple(c["values"])) for c in row["conditions"])
    fields = {**row, "conditions": conditions, "values": tuple(row["values"])}
    return Parameter(**{**fields, "kind": Kind(row["kind"])})
