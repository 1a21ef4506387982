"""One hyperparameter: the only place that knows a value from a probability.

The distributions are KerasTuner's, with its defects mended: the upper end of a float step
is there whenever it lies on the lattice, a value is never beyond its ends, and lattice
values carry no floating-point dust (0.3, not 0.30000000000000004).
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from hpo.errors import SpaceError
from hpo.trial import Value

_TOLERANCE = 1e-9


class Kind(enum.StrEnum):
    """The kinds of hyperparameter that KerasTuner has."""

    INT = "int"
    FLOAT = "float"
    CHOICE = "choice"
    BOOLEAN = "boolean"
    FIXED = "fixed"


@dataclasses.dataclass(frozen=True)
class Condition:
    """Active where the parameter ``name`` has one of ``values``."""

    name: str
    values: tuple[Value, ...]

    def holds(self, params: Mapping[str, Value]) -> bool:
        """Whether the condition is met by the active values ``params``."""
        return self.name in params and params[self.name] in self.values


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A hyperparameter: a name, the conditions under which it is active, and its values.

    ``low``, ``high``, ``step`` and ``sampling`` belong to int and float, ``values`` and
    ``ordered`` to choice; a fixed parameter's value is its ``default``. ``default`` is None
    where none was declared; :attr:`initial` is what a model then gets.
    """

    name: str
    kind: Kind
    default: Value | None = None
    conditions: tuple[Condition, ...] = ()
    low: int | float | None = None
    high: int | float | None = None
    step: int | float | None = None
    sampling: str = "linear"
    values: tuple[Value, ...] = ()
    ordered: bool = False

    @property
    def numeric(self) -> bool:
        """Whether the parameter has ends: an int or a float."""
        return self.kind in (Kind.INT, Kind.FLOAT)

    @property
    def _ends(self) -> tuple[int | float, int | float]:
        assert self.low is not None and self.high is not None
        return self.low, self.high

    @property
    def initial(self) -> Value:
        """The value where nobody chose one: the default, else the first."""
        if self.default is not None:
            return self.default
        if self.kind is Kind.CHOICE:
            return self.values[0]
        return False if self.kind is Kind.BOOLEAN else self._ends[0]

    def active(self, params: Mapping[str, Value]) -> bool:
        """Whether every condition is met by ``params``."""
        return all(condition.holds(params) for condition in self.conditions)

    @property
    def count(self) -> int | None:
        """How many values there are; None for a float that varies without a step."""
        if self.kind is Kind.FIXED:
            return 1
        if self.kind is Kind.BOOLEAN:
            return 2
        if self.kind is Kind.CHOICE:
            return len(self.values)
        low, high = self._ends
        if self.step is not None:
            return self._lattice_count()
        if self.kind is Kind.INT:
            return int(high - low) + 1
        return 1 if low == high else None

    def level(self, index: int) -> Value:
        """The ``index``-th of the :attr:`count` values, in KerasTuner's order."""
        if self.kind is Kind.FIXED:
            return self.initial
        if self.kind is Kind.BOOLEAN:
            return bool(index)
        if self.kind is Kind.CHOICE:
            return self.values[index]
        if self.step is not None:
            return self._lattice_value(index)
        return int(self._ends[0]) + index if self.kind is Kind.INT else float(self._ends[0])

    def index(self, value: Value) -> int:
        """Where ``value`` stands among the levels: the inverse of :meth:`level`."""
        if self.kind is Kind.FIXED:
            return 0
        if not self.numeric:
            return list(self.levels()).index(value)
        assert not isinstance(value, str)
        if self.step is None:
            return int(value - self._ends[0])
        return self._nearest_index(value)

    def levels(self) -> Iterator[Value]:
        """Every value once, lazily; raises SpaceError for a float without a step."""
        count = self.count
        if count is None:
            raise SpaceError(
                f"{self.name!r} is a float without a step and has no finite set of values: "
                f"give it a step, or levels as GRID = {{{self.name!r}: [...]}} in the study"
            )
        return (self.level(index) for index in range(count))

    def from_unit(self, probability: float) -> Value:
        """The value at a cumulative ``probability`` in [0, 1]; both ends of the range included."""
        count = self.count
        if self.kind is Kind.FLOAT and count is None:
            low, high = self._ends
            return float(min(max(self._at(probability, float(high)), low), high))
        assert count is not None
        if self.kind is Kind.INT and self.step is None:
            # KerasTuner truncates a continuous sample of [low, high + 1).
            low, high = self._ends
            return int(min(max(math.floor(self._at(probability, high + 1)), low), high))
        return self.level(min(int(probability * count), count - 1))

    def to_unit(self, value: Value) -> float:
        """The cumulative probability at the middle of ``value``'s share of [0, 1]."""
        if not self.contains(value):
            raise SpaceError(self._outside(value))
        if self.kind is Kind.FLOAT and self.step is None:
            return self._probability(float(value), float(self._ends[1]))
        if self.kind is Kind.INT and self.step is None:
            return self._probability(float(value) + 0.5, self._ends[1] + 1)
        assert self.count is not None
        return (self.index(value) + 0.5) / self.count

    def contains(self, value: Any) -> bool:
        """Whether ``value`` is one this parameter can take, of its native type."""
        if self.kind is Kind.FLOAT and self.step is None:
            low, high = self._ends
            return type(value) in (int, float) and low <= value <= high
        if self.kind is Kind.INT and self.step is None:
            low, high = self._ends
            return type(value) is int and low <= value <= high
        if self.kind in (Kind.FLOAT, Kind.INT):
            low, high = self._ends
            if type(value) is not int and (self.kind is Kind.INT or type(value) is not float):
                return False
            within = low <= value <= high or self._same(value, low) or self._same(value, high)
            return within and self._same(value, self._lattice_value(self._nearest_index(value)))
        return any(type(value) is type(level) and value == level for level in self.levels())

    def nearest(self, value: Any) -> Value:
        """The value nearest to ``value`` that this parameter can take, of its native type.

        What is no number, or no value of a choice, becomes :attr:`initial`.
        """
        if not self.numeric:
            return next((level for level in self.levels() if level == value), self.initial)
        if isinstance(value, str) or not math.isfinite(value):
            return self.initial
        low, high = self._ends
        inside = min(max(value, low), high)
        if self.step is None:
            return round(inside) if self.kind is Kind.INT else float(inside)
        index = self._nearest_index(inside)
        around = range(max(index - 1, 0), min(index + 2, self._lattice_count()))
        return min(map(self._lattice_value, around), key=lambda level: abs(level - inside))

    def check(self, value: Any) -> None:
        """Raises SpaceError, naming the parameter and what is allowed, unless it contains it."""
        if not self.contains(value):
            raise SpaceError(self._outside(value))

    def describe(self) -> str:
        """The values in words, such as ``int 32..128 step 32``."""
        if self.kind is Kind.BOOLEAN:
            return "true or false"
        if self.kind is Kind.FIXED:
            return f"always {self.default!r}"
        if self.kind is Kind.CHOICE:
            return "one of " + ", ".join(repr(value) for value in self.values)
        low, high = self._ends
        step = "" if self.step is None or (self.kind, self.step) == (Kind.INT, 1) else self.step
        suffix = f" step {step}" if step else ""
        return f"{self.kind} {low}..{high}{suffix}" + (
            f" {self.sampling}" if self.sampling != "linear" else ""
        )

    def _outside(self, value: Any) -> str:
        return f"{self.name!r} = {value!r} is outside the space: allowed is {self.describe()}"

    def _at(self, probability: float, high: float) -> float:
        """KerasTuner's continuous transform from [0, 1] onto [low, high]."""
        low = float(self._ends[0])
        if self.sampling == "linear":
            return low + probability * (high - low)
        if self.sampling == "log":
            return low * math.pow(high / low, probability)
        return high + low - low * math.pow(high / low, 1.0 - probability)

    def _probability(self, value: float, high: float) -> float:
        """The inverse of :meth:`_at`."""
        low = float(self._ends[0])
        if high == low:
            return 0.5
        if self.sampling == "linear":
            return (value - low) / (high - low)
        span = math.log(high / low)
        if self.sampling == "log":
            return math.log(value / low) / span
        return 1.0 - math.log((high + low - value) / low) / span

    def _lattice_count(self) -> int:
        low, high = self._ends
        assert self.step is not None
        if self.kind is Kind.INT and self.sampling == "linear":
            return int((high - low) // self.step) + 1
        if self.sampling == "linear":
            steps = (Decimal(repr(high)) - Decimal(repr(low))) / Decimal(repr(self.step))
            return math.floor(steps + Decimal(_TOLERANCE)) + 1
        last = math.floor(math.log(high / low) / math.log(self.step) + _TOLERANCE)
        # The tolerance makes up for rounding, of which integers have none.
        beyond = self.kind is Kind.INT and low * self.step**last > high
        return last if beyond else last + 1

    def _lattice_value(self, index: int) -> int | float:
        low, high = self._ends
        assert self.step is not None
        # In decimal, so that 0.1 + 2 * 0.1 is the 0.3 that its author sees.
        start, step = Decimal(repr(low)), Decimal(repr(self.step))
        if self.sampling == "linear":
            value = start + index * step
        elif self.sampling == "log":
            value = start * step**index
        else:
            value = Decimal(repr(high)) + start - start * step**index
        if self.kind is Kind.INT:
            return int(value)
        number = float(value)
        for end in (float(low), float(high)):
            if math.isclose(number, end, rel_tol=_TOLERANCE):
                return end
        return min(max(number, float(low)), float(high))

    def _nearest_index(self, value: int | float) -> int:
        low, high = self._ends
        assert self.step is not None and self.count is not None
        if self.kind is Kind.INT and self.sampling == "linear":
            return min(max(int((value - low) // self.step), 0), self.count - 1)
        if self.sampling == "linear":
            index = (value - low) / self.step
        else:
            distance = value if self.sampling == "log" else high + low - value
            index = math.log(distance / low) / math.log(self.step)
        return min(max(round(index), 0), self.count - 1)

    def _same(self, one: int | float, other: int | float) -> bool:
        """Whether two values on the lattice differ by no more than the dust of a computation."""
        if self.kind is Kind.INT:
            return one == other
        assert self.step is not None
        # Sums leave dust around zero too, where nothing is relatively close.
        dust = _TOLERANCE * self.step if self.sampling == "linear" else 0.0
        return math.isclose(one, other, rel_tol=_TOLERANCE, abs_tol=dust)
