"""The grid of a search space, as a sequence of which nothing is made before it is asked for."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from hpo.errors import SpaceError
from hpo.parameter import Parameter
from hpo.trial import Params, Value


class Grid:
    """Every point of the ``parameters`` once, found by its index: nothing is enumerated or kept.

    The last declared parameter varies fastest. A point holds active parameters only, so
    branches of a condition never repeat one another.
    """

    def __init__(
        self, parameters: Sequence[Parameter], levels: Mapping[str, Sequence[Value]]
    ) -> None:
        self._parameters = parameters
        self._levels = [_levels_of(p, levels.get(p.name)) for p in parameters]
        self._relevant = [self._parents_of_rest(i) for i in range(len(self._parameters) + 1)]
        self._runs = [self._runs_of(i) for i in range(len(self._parameters))]
        self._counts: dict[tuple[int, tuple[tuple[str, Value], ...]], int] = {}

    @property
    def size(self) -> int:
        """How many points there are (not ``len``, which Python bounds at 2**63)."""
        return self._count(0, {})

    def __getitem__(self, index: int) -> Params:
        if not 0 <= index < self.size:
            raise IndexError(index)
        return self._point(index)

    def __iter__(self) -> Iterator[Params]:
        size = self.size
        return (self._point(index) for index in itertools.takewhile(size.__gt__, itertools.count()))

    def _parents_of_rest(self, start: int) -> frozenset[str]:
        """Names whose values still matter from the ``start``-th parameter on."""
        rest = self._parameters[start:]
        parents = {condition.name for p in rest for condition in p.conditions}
        return frozenset(parents | {p.name for p in rest})

    def _count(self, start: int, params: Params) -> int:
        """How many ways there are to go on from the ``start``-th parameter."""
        if start == len(self._parameters):
            return 1
        relevant = self._relevant[start]
        key = (start, tuple((n, v) for n, v in params.items() if n in relevant))
        if key not in self._counts:
            self._counts[key] = sum(
                ways * self._count(start + 1, branch)
                for ways, branch in self._branches(start, params)
            )
        return self._counts[key]

    def _branches(self, start: int, params: Params) -> Iterator[tuple[int, Params]]:
        """Continuations after one parameter; those that cannot differ later come as one."""
        parameter = self._parameters[start]
        if parameter.name in params or not parameter.active(params):
            yield 1, params
        else:
            for run in self._runs[start]:
                yield run.length, {**params, parameter.name: run.like}

    def _runs_of(self, start: int) -> list[_Run]:
        """A parameter's levels, as runs of which no later condition tells the levels apart."""
        name, levels = self._parameters[start].name, self._levels[start]
        conditions = {
            condition.values
            for parameter in self._parameters[start + 1 :]
            for condition in parameter.conditions
            if condition.name == name
        }
        named = {levels.index(value) for values in conditions for value in values}
        places = [place for place in named if place is not None]
        # Behind a level that is named, the next ones may be of those that are not.
        begins = sorted({0, *places, *(place + 1 for place in places)} - {levels.count})
        like: dict[tuple[bool, ...], Value] = {}
        runs: list[_Run] = []
        for first, end in itertools.pairwise([*begins, levels.count]):
            level = levels.at(first)
            kind = like.setdefault(tuple(level in values for values in conditions), level)
            if runs and runs[-1].like == kind:
                first = runs.pop().first
            runs.append(_Run(first, end - first, kind))
        return runs

    def _point(self, index: int) -> Params:
        params: Params = {}
        # The point as it is counted: a value that nothing tells apart is as good as another.
        alike: Params = {}
        for start, parameter in enumerate(self._parameters):
            name = parameter.name
            if name not in alike and parameter.active(alike):
                place, alike[name], index = self._choice(start, alike, index)
                params[name] = self._levels[start].at(place)
        return params

    def _choice(self, start: int, alike: Params, index: int) -> tuple[int, Value, int]:
        """The ``index``-th continuation: the level's place, one like it, the index from there."""
        name = self._parameters[start].name
        for run in self._runs[start]:
            each = self._count(start + 1, {**alike, name: run.like})
            if index < each * run.length:
                position, rest = divmod(index, each)
                return run.first + position, run.like, rest
            index -= each * run.length
        raise IndexError(index)


@dataclasses.dataclass(frozen=True)
class _Run:
    """So many levels from the ``first`` on, at each of which as much is active as at ``like``."""

    first: int
    length: int
    like: Value


@dataclasses.dataclass(frozen=True)
class _Levels:
    """A parameter's levels, made when they are looked at: there may be billions of them."""

    count: int
    at: Callable[[int], Value]
    index: Callable[[Value], int | None]


def _levels_of(parameter: Parameter, given: Sequence[Value] | None) -> _Levels:
    """The parameter's levels without repetitions."""
    if given is None and parameter.numeric and parameter.count is not None:
        return _Levels(parameter.count, parameter.level, lambda v: _index(parameter, v))
    if given is None:
        return _listed(parameter.levels())
    if isinstance(given, str) or not given:
        raise SpaceError(f"GRID[{parameter.name!r}] must be a list of at least one level")
    for level in given:
        parameter.check(level)
    return _listed(given)


def _listed(levels: Iterable[Value]) -> _Levels:
    distinct = list(dict.fromkeys(levels))
    places = {level: place for place, level in enumerate(distinct)}
    return _Levels(len(distinct), distinct.__getitem__, places.get)


def _index(parameter: Parameter, value: Value) -> int | None:
    """Where ``value`` stands among a number's levels; None where it is none of them."""
    if not parameter.contains(value):
        return None
    index = parameter.index(value)
    return index if parameter.level(index) == value else None
