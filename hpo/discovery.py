"""Reads a search space out of the code that uses it, as KerasTuner does.

The code is run with its defaults, then until every conditional scope was active once. A
parameter behind a plain ``if``, or in a loop whose length is itself tuned, shows only when
it is reached; so the code is also run until each choice was taken and each integer was at
its upper end, which finds the usual ones before the search starts. One run takes as many
steps at once as it can; where they get in each other's way, they are taken one by one from
the values at which the parameter was first met.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hpo.errors import SpaceError
from hpo.hyperparameters import from_config, parameter_of, to_config
from hpo.keras_tuner_parts import hyperparameters_class
from hpo.parameter import Condition, Kind, Parameter
from hpo.space import SearchSpace
from hpo.trial import Params, Value

# A choice of more values than this is not walked through value by value.
_WALKED_VALUES = 64
# Code that needs more runs than this declares parameters without end.
_MOST_RUNS = 500

Scope = tuple[Condition, ...]


def discover(use: Callable[[Any], object]) -> SearchSpace:
    """The space that ``use`` (called with KerasTuner's HyperParameters) declares.

    Raises what ``use`` raises at its defaults and at its conditional scopes, and SpaceError
    where one name is declared with two different ranges under the same conditions.
    """
    return _Discovery(use).run()


class _Discovery:
    def __init__(self, use: Callable[[Any], object]) -> None:
        self._use = use
        self._runs = 0
        self._space = SearchSpace([])
        self._visited: set[tuple[Parameter, Value]] = set()
        self._settled: set[Scope] = set()
        # Where a scope that was never active, and a parameter, were met.
        self._waiting: dict[Scope, Params] = {}
        self._homes: dict[Parameter, Params] = {}

    def run(self) -> SearchSpace:
        self._run({}, {}, spread=False)
        while True:
            if self._waiting:
                self._activate(next(iter(self._waiting)))
            elif corner := next(self._unvisited(), None):
                self._visit(*corner)
            else:
                return self._space

    def _activate(self, scope: Scope) -> None:
        forced, home = self._meeting(scope), self._waiting[scope]
        self._attempt(forced, home, spread=True)
        if scope not in self._settled:
            self._run(forced, home, spread=False)
        # If even now it was not active, its parents exclude one another: nothing activates it.
        self._settle(scope)

    def _visit(self, parameter: Parameter, value: Value) -> None:
        forced = self._meeting(parameter.conditions) | {parameter.name: value}
        home = self._homes.get(parameter, {})
        for spread in (True, False):
            self._attempt(forced, home, spread)
            if (parameter, value) in self._visited:
                return
        self._visited.add((parameter, value))

    def _attempt(self, forced: Params, home: Params, spread: bool) -> None:
        try:
            self._run(forced, home, spread)
        except SpaceError:
            raise
        except Exception:
            # Some corners of a space are no model at all (say, pooled to nothing). That is
            # for the trial that meets one to report, and no reason to refuse the others.
            return

    def _run(self, forced: Params, home: Params, spread: bool) -> None:
        """One run at ``forced`` values, elsewhere at those not yet visited or those of home."""
        self._runs += 1
        if self._runs > _MOST_RUNS:
            raise SpaceError(
                f"new hyperparameters still appear after {_MOST_RUNS} runs, the last is "
                f"{self._space.parameters[-1].name!r}: put a bound on the loop that declares them"
            )
        params = self._space.draw(lambda p: self._pick(p, forced, home, spread))
        hp = _recorder().from_config(to_config(self._space, params))
        try:
            self._use(hp)
        finally:
            # What was declared before an exception still belongs to the space.
            self._note_declared(hp)
        self._note_visited(hp)

    def _pick(self, parameter: Parameter, forced: Params, home: Params, spread: bool) -> Value:
        if parameter.contains(value := forced.get(parameter.name)):
            return value  # type: ignore[return-value]
        if spread:
            for corner in _corners(parameter):
                if (parameter, corner) not in self._visited:
                    return corner
        # A name may have another range in another branch.
        at_home = home.get(parameter.name)
        return at_home if parameter.contains(at_home) else parameter.initial  # type: ignore[return-value]

    def _meeting(self, conditions: Sequence[Condition]) -> Params:
        """Values that meet the conditions, of which some values may be none of their parent's."""
        return {
            condition.name: value
            for condition in conditions
            for value in reversed(condition.values)
            if any(p.name == condition.name and p.contains(value) for p in self._space.parameters)
        }

    def _unvisited(self) -> Iterator[tuple[Parameter, Value]]:
        for parameter in self._space.parameters:
            for value in _corners(parameter):
                if (parameter, value) not in self._visited:
                    yield parameter, value

    def _note_declared(self, hp: Any) -> None:
        self._space = from_config(hp.get_config())
        params = dict(hp.values)
        for parameter in hp.declared:
            self._homes.setdefault(parameter, params)
        for scope in map(_conditions, hp.inactive_scopes):
            if scope not in self._settled:
                self._waiting.setdefault(scope, params)

    def _note_visited(self, hp: Any) -> None:
        for parameter in hp.declared:
            if parameter.active(hp.values):
                self._visited.add((parameter, hp.values[parameter.name]))
        for scope in map(_conditions, hp.active_scopes):
            self._settle(scope)

    def _settle(self, scope: Scope) -> None:
        self._settled.add(scope)
        self._waiting.pop(scope, None)


def _corners(parameter: Parameter) -> Iterator[Value]:
    """The values at which further parameters usually appear."""
    if parameter.kind in (Kind.CHOICE, Kind.BOOLEAN):
        count = parameter.count or 0
        yield from parameter.levels() if count <= _WALKED_VALUES else ()
    elif parameter.kind is Kind.INT:
        yield parameter.from_unit(1.0)


def _conditions(scope: Sequence[Any]) -> Scope:
    return tuple(Condition(parent.name, tuple(parent.values)) for parent in scope)


def _recorder() -> Any:
    """KerasTuner's class, which notes what is declared.

    It refuses a redeclaration with another range, which KerasTuner would ignore in silence.
    """
    base = hyperparameters_class()

    class Recorder(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__()
            self.declared: list[Parameter] = []

        def _retrieve(self, hp: Any) -> Any:
            parameter = parameter_of(hp)
            for known in self._hps.get(hp.name, ()):
                if known.conditions == hp.conditions and parameter_of(known) != parameter:
                    raise SpaceError(
                        f"{hp.name!r} is declared as {known!r} and again as {hp!r}: "
                        "declare it once, or give the second another name"
                    )
            self.declared.append(parameter)
            return super()._retrieve(hp)

    return Recorder
