"""Search spaces made up by hypothesis, and the code that a person would write for them."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

from hpo.parameter import Condition, Kind, Parameter
from hpo.space import SearchSpace
from hpo.study import Form, Study
from hpo.trial import Direction, Params, Value

# Not in alphabetical order, and some within a name scope: a space's order is its declaration's.
NAMES = [
    "zeta", "alpha", "block/units", "mid", "block/rate", "a b", "epsilon", "beta", "x", "näme",
    "kappa", "omega", "c", "tau", "rho", "nu", "phi", "chi", "psi", "eta", "b", "m", "w", "v",
]  # fmt: skip
DEEPEST = 3

_LOGS = st.sampled_from(["log", "reverse_log"])


@functools.cache
def ints(name: str, widest: int = 10**6) -> st.SearchStrategy[Parameter]:
    """Integers of every sampling, with and without a step, up to ``widest`` levels."""
    low, width = st.integers(-50, 50), st.integers(0, widest)
    positive, factor = st.integers(1, 50), st.integers(2, 5)
    step = st.integers(1, 1 + widest // 3)
    return st.one_of(
        st.builds(lambda a, w, s: _int(name, a, a + w, s, "linear"), low, width, step),
        st.builds(lambda a, w, g: _int(name, a, a + w, None, g), positive, width, _LOGS),
        st.builds(lambda a, w, s, g: _int(name, a, a + w, s, g), positive, width, factor, _LOGS),
    ).flatmap(lambda p: _with_default(p, may_lack=True))


@functools.cache
def stepped_floats(name: str, most: int = 300) -> st.SearchStrategy[Parameter]:
    """Floats with a step, up to ``most`` levels; not every upper end lies on the lattice."""
    tens = st.sampled_from([0.001, 0.01, 0.1, 0.25, 1.0])
    start, count, step = st.integers(-9, 9), st.integers(0, most - 1), st.integers(1, 9)
    factor = st.sampled_from([1.1, 1.5, 2, 3.0, 10])
    powers, rest = st.integers(0, min(most - 1, 6)), st.sampled_from([0.0, 0.0, 0.4])
    return st.one_of(
        st.builds(lambda *given: _linear(name, *given), start, step, count, rest, tens),
        st.builds(lambda *given: _powers(name, *given), tens, factor, powers, rest, _LOGS),
    ).flatmap(_with_default)


@functools.cache
def free_floats(name: str) -> st.SearchStrategy[Parameter]:
    """Floats without a step, of every sampling."""
    low, width = st.floats(1e-6, 1e3), st.floats(0.0, 1e4)
    return st.builds(
        lambda a, w, g: Parameter(name, Kind.FLOAT, a, low=a, high=a + w, sampling=g),
        low,
        width,
        st.one_of(st.just("linear"), _LOGS),
    )


@functools.cache
def choices(name: str, most: int = 4) -> st.SearchStrategy[Parameter]:
    """Choices of words, integers or floats, in any order."""
    fraction = st.floats(-9, 9).map(lambda x: round(x, 3) + 0.0)
    kinds: list[st.SearchStrategy[Any]] = [st.text(max_size=3), st.integers(-9, 9), fraction]
    lists = (st.lists(kind, min_size=1, max_size=most, unique=True) for kind in kinds)
    return st.one_of(*lists).map(lambda values: _choice(name, values)).flatmap(_with_default)


@functools.cache
def booleans(name: str) -> st.SearchStrategy[Parameter]:
    """A yes or no, with either default."""
    return st.booleans().map(lambda default: Parameter(name, Kind.BOOLEAN, default))


@functools.cache
def fixed(name: str) -> st.SearchStrategy[Parameter]:
    """A value that nobody tunes."""
    value: st.SearchStrategy[Any] = st.sampled_from([True, False, 0, -3, 0.5, "relu"])
    return value.map(lambda v: Parameter(name, Kind.FIXED, v))


@functools.cache
def parameters(name: str, finite: bool = False) -> st.SearchStrategy[Parameter]:
    """Any parameter; with ``finite`` one of at most three levels or so."""
    if finite:
        kinds = [ints(name, 2), stepped_floats(name, 3), choices(name, 3)]
    else:
        kinds = [ints(name), stepped_floats(name), free_floats(name), choices(name)]
    return st.one_of(*kinds, booleans(name), fixed(name))


@st.composite
def spaces(draw: Any, finite: bool = False) -> SearchSpace:
    """Up to about ten parameters, conditions up to three deep.

    A name may stand for one range in one branch of a condition and for another in the other
    branch, or for the same range in two branches that overlap.
    """
    builder = _Builder(draw, finite)
    builder.block((), depth=0)
    return SearchSpace(builder.made)


class _Builder:
    def __init__(self, draw: Any, finite: bool) -> None:
        self._draw = draw
        self._finite = finite
        first = draw(st.integers(0, len(NAMES) - 1))
        self._names = itertools.islice(itertools.cycle(NAMES), first, first + len(NAMES))
        self._most = 6 if finite else 10
        self.made: list[Parameter] = []

    def block(self, conditions: tuple[Condition, ...], depth: int) -> None:
        for _ in range(self._draw(st.integers(1, 2 if depth else 3))):
            if len(self.made) < self._most:
                parent = self._declare(next(self._names), conditions)
                if depth < DEEPEST and self._draw(st.booleans()):
                    self._branches(parent, depth + 1)

    def _declare(self, name: str, conditions: tuple[Condition, ...]) -> Parameter:
        drawn = self._draw(parameters("", self._finite))
        return self._add(dataclasses.replace(drawn, name=name), conditions)

    def _add(self, parameter: Parameter, conditions: tuple[Condition, ...]) -> Parameter:
        own = dataclasses.replace(parameter, conditions=conditions)
        self.made.append(own)
        return own

    def _branches(self, parent: Parameter, depth: int) -> None:
        levels = few_levels(parent)
        if not levels:
            return
        cut = self._draw(st.integers(1, len(levels)))
        self.block(_under(parent, levels[:cut]), depth)
        if cut == len(levels) or len(self.made) >= self._most:
            return
        twin = self.made[-1]
        other = self._draw(st.sampled_from(["own name", "own range", "overlap"]))
        if twin.conditions[:-1] != parent.conditions or other == "own name":
            self.block(_under(parent, levels[cut:]), depth)
        elif other == "own range":
            self._declare(twin.name, _under(parent, levels[cut:]))
        else:
            self._add(twin, _under(parent, levels[cut - 1 :]))


def renamed(parameter: Parameter, name: str) -> Parameter:
    """The same under another name."""
    return dataclasses.replace(parameter, name=name)


def few_levels(parameter: Parameter) -> list[Value]:
    """Some levels that a condition can name; none for a float, which nobody compares."""
    if parameter.kind is Kind.FLOAT:
        return []
    assert parameter.count is not None
    return [parameter.level(i) for i in range(min(parameter.count, 4))]


def a_study(space: SearchSpace, **changes: Any) -> Study:
    """A study of ``space``, as the ledger would hold it."""
    fields: dict[str, Any] = {
        "name": "made-up",
        "form": Form.FUNCTION,
        "objective": "loss",
        "direction": Direction.MIN,
        "epochs": 3,
        "batch_size": 32,
        "space": space,
        "grid": {},
        "digest": "0" * 64,
    }
    return Study(**{**fields, **changes})


def declare(space: SearchSpace, hp: Any) -> list[Any]:
    """What a person's code does: declares each parameter in its scopes; the values it gets."""
    values = []
    for parameter in space.parameters:
        with contextlib.ExitStack() as scopes:
            for condition in parameter.conditions:
                scopes.enter_context(hp.conditional_scope(condition.name, list(condition.values)))
            values.append(declare_one(parameter, hp))
    return values


def declare_one(parameter: Parameter, hp: Any) -> Any:
    """Declares one parameter where the code stands; the value it gets."""
    name, default = parameter.name, parameter.default
    if parameter.kind is Kind.FIXED:
        return hp.Fixed(name, default)
    if parameter.kind is Kind.BOOLEAN:
        return hp.Boolean(name, default=default)
    if parameter.kind is Kind.CHOICE:
        return hp.Choice(name, parameter.values, ordered=parameter.ordered, default=default)
    method = hp.Int if parameter.kind is Kind.INT else hp.Float
    ends = parameter.low, parameter.high
    return method(name, *ends, step=parameter.step, sampling=parameter.sampling, default=default)


def _choice(name: str, values: list[Value]) -> Parameter:
    ordered = not isinstance(values[0], str) and len(values) != 2
    return Parameter(name, Kind.CHOICE, values[0], values=tuple(values), ordered=ordered)


def _int(name: str, low: int, high: int, step: int | None, sampling: str) -> Parameter:
    return Parameter(name, Kind.INT, low=low, high=high, step=step, sampling=sampling)


def _linear(name: str, start: int, step: int, count: int, rest: float, unit: float) -> Parameter:
    # Rounded, since a person writes 0.3 where the sum gives 0.30000000000000004.
    low, width = round(start * unit, 6), round(step * unit, 6)
    high = round(low + (count + rest) * width, 6)
    return Parameter(name, Kind.FLOAT, low, low=low, high=high, step=width)


def _powers(
    name: str, low: float, factor: float, powers: int, rest: float, sampling: str
) -> Parameter:
    high = float(f"{low * factor ** (powers + rest):.12g}")
    fields: dict[str, Any] = {"low": low, "high": high, "step": factor, "sampling": sampling}
    return Parameter(name, Kind.FLOAT, low, **fields)


def _with_default(parameter: Parameter, may_lack: bool = False) -> st.SearchStrategy[Parameter]:
    """Any level as the default; an integer may lack one, which KerasTuner keeps apart."""
    assert parameter.count is not None
    index = st.integers(0, parameter.count - 1)
    level = index.map(lambda i: dataclasses.replace(parameter, default=parameter.level(i)))
    return st.one_of(st.just(parameter), level) if may_lack else level


def _under(parent: Parameter, values: list[Value]) -> tuple[Condition, ...]:
    return (*parent.conditions, Condition(parent.name, tuple(values)))


def brute_force(space: SearchSpace) -> Iterator[Params]:
    """Every point once, by trying all values of all parameters: slow, and plainly right."""
    seen = set()
    for values in _products(space.parameters):
        params: Params = {}
        for parameter, value in zip(space.parameters, values, strict=True):
            if parameter.name not in params and parameter.active(params):
                params[parameter.name] = value
        if frozen(params) not in seen:
            seen.add(frozen(params))
            yield params


def frozen(params: Params) -> tuple[Any, ...]:
    """A point that can be in a set; True is not 1 in it."""
    return tuple((name, type(value).__name__, value) for name, value in params.items())


def _products(parameters: tuple[Parameter, ...]) -> Iterator[tuple[Value, ...]]:
    if not parameters:
        yield ()
        return
    for value in parameters[0].levels():
        for rest in _products(parameters[1:]):
            yield (value, *rest)
