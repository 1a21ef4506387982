"""Which parameters of a space some point activates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hpo.parameter import Condition, Parameter
from hpo.space import SearchSpace
from hpo.trial import Value

_Needs = Mapping[str, tuple[Value, ...]]


def unreachable(space: SearchSpace) -> list[Parameter]:
    """The parameters that are inactive at every point, because their conditions never hold."""
    return [p for p in space.parameters if not _possible(space, {}, p.conditions)]


def _possible(space: SearchSpace, needs: _Needs, conditions: Iterable[Condition]) -> bool:
    """Whether the ``conditions`` can hold together where ``needs`` hold already.

    ``needs`` are the values left to each parent that was looked at. A parent needs its own
    conditions in turn, and of several parents with one name any will do.
    """
    first, *rest = [*conditions, None]
    if first is None:
        return True
    for parent in space.parameters:
        if parent.name != first.name:
            continue
        allowed = needs.get(first.name, first.values)
        values = tuple(v for v in first.values if v in allowed and _takes(parent, v))
        open_conditions = [c for c in (*parent.conditions, *rest) if c]
        if values and _possible(space, {**needs, first.name: values}, open_conditions):
            return True
    return False


def _takes(parent: Parameter, value: Value) -> bool:
    """Whether ``parent`` can have a value that equals ``value``, as its condition compares."""
    if not parent.numeric:
        return value in parent.levels()
    if isinstance(value, str):
        return False
    return parent.contains(float(value)) or (value == int(value) and parent.contains(int(value)))
