"""Reads a search space out of the code that uses it, as KerasTuner does.

The code is run with its defaults, then until every conditional scope was active once. A
parameter behind a plain ``if``, or in a loop whose length is itself tuned, shows only when
it is reached; so the code is also run until each choice was taken and each integer was at
its upper end, which finds the usual ones before the search starts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from hpo.errors import SpaceError
from hpo.hyperparameters import from_config, hyperparameters_class, to_config
from hpo.parameter import Kind, Parameter
from hpo.space import SearchSpace
from hpo.trial import Params, Value

# A choice of more values than this is not walked through value by value.
_WALKED_VALUES = 64


def discover(use: Callable[[Any], object]) -> SearchSpace:
    """The space that ``use`` (called with KerasTuner's HyperParameters) declares.

    Raises what ``use`` raises at its defaults and at its conditional scopes, and SpaceError
    where one name is declared with two different ranges under the same conditions.
    """
    return _Discovery(use).run()


class _Discovery:
    def __init__(self, use: Callable[[Any], object]) -> None:
        self._use = use
        self._space = SearchSpace([])
        self._visited: set[tuple[Parameter, Value]] = set()
        self._active_once: list[Any] = []
        self._never_active: list[Any] = []

    def run(self) -> SearchSpace:
        self._try({})
        while True:
            if self._never_active:
                scope = self._never_active[0]
                self._try({c.name: c.values[0] for c in scope})
                if self._never_active and self._never_active[0] is scope:
                    # Its parents exclude one another: nothing can ever activate it.
                    self._active_once.append(self._never_active.pop(0))
            elif target := next(self._unvisited(), None):
                self._try_corner(*target)
            else:
                return self._space

    def _try_corner(self, parameter: Parameter, value: Value) -> None:
        forced = {c.name: c.values[0] for c in parameter.conditions} | {parameter.name: value}
        try:
            self._try(forced)
        except SpaceError:
            raise
        except Exception:
            # Some corners of a space are no model at all (say, pooled to nothing). That is
            # for the trial that meets one to report, and no reason to refuse the others.
            self._visited.add((parameter, value))
        self._visited.add((parameter, value))

    def _try(self, forced: Params) -> None:
        """One run at ``forced`` values, elsewhere at values not yet visited."""
        params = self._space.draw(lambda p: forced.get(p.name, self._fresh(p, bool(forced))))
        hp = _recorder().from_config(to_config(self._space, params))
        try:
            self._use(hp)
        finally:
            # What was declared before an exception still belongs to the space.
            self._space = from_config(hp.get_config())
            self._note_visits(dict(hp.values))
            self._note_scopes(hp)

    def _fresh(self, parameter: Parameter, spread: bool) -> Value:
        if spread:
            for value in _corners(parameter):
                if (parameter, value) not in self._visited:
                    return value
        return parameter.initial

    def _unvisited(self) -> Iterator[tuple[Parameter, Value]]:
        for parameter in self._space.parameters:
            for value in _corners(parameter):
                if (parameter, value) not in self._visited:
                    yield parameter, value

    def _note_visits(self, params: Params) -> None:
        for parameter in self._space.parameters:
            if parameter.name in params and parameter.active(params):
                self._visited.add((parameter, params[parameter.name]))

    def _note_scopes(self, hp: Any) -> None:
        for scope in hp.active_scopes:
            if scope not in self._active_once:
                self._active_once.append(scope)
        self._never_active = [s for s in self._never_active if s not in self._active_once]
        for scope in hp.inactive_scopes:
            if scope not in self._active_once and scope not in self._never_active:
                self._never_active.append(scope)


def _corners(parameter: Parameter) -> Iterator[Value]:
    """The values at which further parameters usually appear."""
    if parameter.kind in (Kind.CHOICE, Kind.BOOLEAN):
        count = parameter.count or 0
        yield from parameter.levels() if count <= _WALKED_VALUES else ()
    elif parameter.kind is Kind.INT:
        yield parameter.from_unit(1.0)


def _recorder() -> Any:
    """KerasTuner's class, refusing a redeclaration that KerasTuner would ignore in silence."""
    base = hyperparameters_class()

    class Recorder(base):  # type: ignore[misc, valid-type]
        def _retrieve(self, hp: Any) -> Any:
            for known in self._hps.get(hp.name, ()):
                if known.conditions == hp.conditions and known.get_config() != hp.get_config():
                    raise SpaceError(
                        f"{hp.name!r} is declared as {known!r} and again as {hp!r}: "
                        "declare it once, or give the second another name"
                    )
            return super()._retrieve(hp)

    return Recorder
