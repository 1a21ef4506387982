"""Which parameters of a space some point activates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from hpo.parameter import Condition, Parameter
from hpo.trial import Value

_Needs = Mapping[str, tuple[Value, ...]]


def reachable(space: Sequence[Parameter]) -> tuple[Parameter, ...]:
    """Those parameters of a space whose conditions can hold; the others are never active."""
    return tuple(p for p in space if _possible(space, {}, p.conditions))


def _possible(space: Sequence[Parameter], needs: _Needs, conditions: Iterable[Condition]) -> bool:
    """Whether the ``conditions`` can hold together where ``needs`` hold already.

    ``needs`` are the values left to each parent that was looked at. A parent needs its own
    conditions in turn, and of several parents with one name any will do.
    """
    first, *rest = [*(c for c in conditions if not _holds(needs, c)), None]
    if first is None:
        return True
    for parent in space:
        if parent.name != first.name:
            continue
        allowed = needs.get(first.name, first.values)
        values = tuple(v for v in first.values if v in allowed and _takes(parent, v))
        open_conditions = [c for c in (*parent.conditions, *rest) if c]
        if values and _possible(space, {**needs, first.name: values}, open_conditions):
            return True
    return False


def _holds(needs: _Needs, condition: Condition) -> bool:
    """Whether every value that is left to the condition's parent meets it."""
    left = needs.get(condition.name, ())
    return bool(left) and all(value in condition.values for value in left)


def _takes(parent: Parameter, value: Value) -> bool:
    """Whether ``parent`` can have a value that equals ``value``, as its condition compares."""
    if not parent.numeric:
        return value in parent.levels()
    if isinstance(value, str):
        return False
    return parent.contains(float(value)) or (value == int(value) and parent.contains(int(value)))
