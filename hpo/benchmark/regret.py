"""How far a search was from the best there is, on a scale that tells methods apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hpo.benchmark.table import Table
from hpo.benchmark.trace import Trace
from hpo.trial import Direction

Floats = npt.NDArray[np.float64]

# A regret below this counts as none: the logarithm of nothing says nothing.
FLOOR = 1e-3
# The places of a budget at which methods are compared.
FRACTIONS = (0.25, 0.5, 1.0)
_PLACES = 101
# So many in a hundred of a method's searches end within an axis.
_SHOWN = 75


@dataclasses.dataclass(frozen=True)
class Scale:
    """What a regret of 0 and one of 1 mean: the best value there is, and the median of all.

    With the worst value at the other end every method would read 0.000: the worst of a space
    is far worse than whatever is compared.
    """

    best: float
    median: float
    direction: Direction

    @classmethod
    def of(cls, values: Sequence[float] | Floats, direction: Direction) -> Scale:
        """The scale of a space whose points have these ``values``; NaN is none."""
        finite = np.asarray(values, dtype=float)
        finite = finite[np.isfinite(finite)]
        if not len(finite):
            return cls(1.0, 0.0, direction)
        best = finite.max() if direction is Direction.MAX else finite.min()
        return cls(float(best), float(np.median(finite)), direction)

    def regret(self, values: Sequence[float] | Floats) -> Floats:
        """The regret of each of ``values``; 1 where there is no value yet."""
        found = np.asarray(values, dtype=float)
        width = abs(self.best - self.median)
        if width == 0:
            # Half of all points are as good as the best.
            return np.where(np.isnan(found), 1.0, (found != self.best).astype(float))
        return np.where(np.isnan(found), 1.0, np.abs(self.best - found) / width)

    def value(self, regret: float) -> float:
        """The value that has this ``regret``: the inverse of :meth:`regret`."""
        return self.best + (self.median - self.best) * regret


def scale_of_table(table: Table, seed: int) -> Scale:
    """The scale of the searches of ``seed``: over the curves that they meet."""
    drawn = table.drawn(seed)
    return Scale.of(table.values()[np.arange(table.rows), drawn], table.direction)


def log_regret(regret: Floats) -> Floats:
    """The decimal logarithm, from :data:`FLOOR` on."""
    logs: Floats = np.log10(np.maximum(regret, FLOOR))
    return logs


# What an incumbent can be drawn against: the unit of each axis.
AXES = {"trials": "trials that ended", "node_s": "node-seconds", "at_s": "seconds"}


def places(methods: Sequence[Sequence[Trace]], axis: str) -> tuple[Floats, int]:
    """Places on ``axis`` from 0 to where three quarters of each method's searches have ended.

    With them how many go on beyond: one that took a hundred times as long as all others, for
    its machine stood still, would leave nothing to see of these.
    """
    ends = [[_along(t, axis)[-1] for t in own if t.ends] for own in methods]
    end = max((float(np.percentile(own, _SHOWN)) for own in ends if own), default=1.0)
    beyond = sum(bool(value > end) for own in ends for value in own)
    return np.linspace(0.0, end, _PLACES), beyond


def curve(trace: Trace, scale: Scale, axis: str, at: Floats) -> Floats:
    """The regret of the incumbent at the places ``at`` of ``axis``; it ends where it ended."""
    if not trace.ends:
        return np.full(len(at), 1.0)
    regrets = np.concatenate([[1.0], scale.regret(trace.best(scale.direction))])
    index = np.searchsorted(_along(trace, axis), at + 1e-9, side="right")
    return regrets[index]


def at_fraction(trace: Trace, scale: Scale, axis: str, budget: float, fraction: float) -> float:
    """The regret once ``fraction`` of ``budget`` is spent on ``axis``."""
    return float(curve(trace, scale, axis, np.array([fraction * budget]))[0])


def _along(trace: Trace, axis: str) -> Floats:
    if axis == "trials":
        return np.arange(1.0, len(trace.ends) + 1)
    return np.array([getattr(end, axis) for end in trace.ends])
