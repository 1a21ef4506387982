"""Which row of a table stands for a point that is not in it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hpo.parameter import Kind, Parameter
from hpo.space import SearchSpace
from hpo.trial import Params, Value


class Rows:
    """The rows of a table by their places in the unit cube, and which of them are used.

    A numeric or ordered parameter has an axis, along which it lies at its cumulative
    probability; two values of an unordered choice, or a value and none where a parameter
    is not active, are one apart.
    """

    def __init__(self, space: SearchSpace, configurations: Sequence[Params]) -> None:
        self._space = space
        self._parameters = [p for p in space.parameters if p.kind is not Kind.FIXED]
        self._apart = np.array([_unordered(p) for p in self._parameters], dtype=bool)
        self._places = np.array([self._place(point) for point in configurations])
        self._exact = {tuple(point.items()): row for row, point in enumerate(configurations)}
        self._used = np.zeros(len(configurations), dtype=bool)

    @property
    def left(self) -> int:
        """How many rows are not used."""
        return int((~self._used).sum())

    def take(self, point: Params) -> int:
        """Uses the unused row nearest to ``point``, of several the first; one must be left."""
        row = self._exact.get(tuple(point.items()))
        if row is None or self._used[row]:
            distances = np.where(self._used, np.inf, self._distances(point))
            row = int(distances.argmin())
        self._used[row] = True
        return row

    def _distances(self, point: Params) -> npt.NDArray[np.float64]:
        place = self._place(point)
        here, there = np.isnan(place), np.isnan(self._places)
        apart = np.abs(np.nan_to_num(self._places) - np.nan_to_num(place))
        apart = np.where(self._apart, apart > 0, apart)
        apart = np.where(here & there, 0.0, np.where(here ^ there, 1.0, apart))
        distances: npt.NDArray[np.float64] = (apart**2).sum(axis=1)
        return distances

    def _place(self, point: Params) -> npt.NDArray[np.float64]:
        """A coordinate for each parameter; NaN where it is not active."""
        found: dict[Parameter, float] = {}

        def note(parameter: Parameter) -> Value:
            value = point[parameter.name]
            if parameter.kind is not Kind.FIXED:
                whole = _unordered(parameter)
                found[parameter] = parameter.index(value) if whole else parameter.to_unit(value)
            return value

        self._space.draw(note)
        return np.array([found.get(p, np.nan) for p in self._parameters], dtype=np.float64)


def _unordered(parameter: Parameter) -> bool:
    return not parameter.numeric and not parameter.ordered
