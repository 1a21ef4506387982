"""Which points of a space were tried, and random ones that were not."""

from __future__ import annotations

import random

from hpo.space import SearchSpace
from hpo.trial import Params

# So many refused draws in a row mean that what they are drawn from is nearly used up.
_DRAWS = 1000
# And so many of an endless one that nearly all that is left of it is never drawn.
_ENDLESS_DRAWS = 1_000_000


def _key(params: Params) -> tuple[tuple[str, object], ...]:
    return tuple(params.items())


class Untried:
    """The points of ``space`` that are left."""

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._size = space.size
        self._used: set[tuple[tuple[str, object], ...]] = set()

    def __contains__(self, params: Params) -> bool:
        return _key(params) not in self._used

    @property
    def none_left(self) -> bool:
        """Whether a finite space is used up."""
        return self._size is not None and len(self._used) >= self._size

    def use(self, params: Params) -> None:
        """``params`` is tried."""
        self._used.add(_key(params))

    def free(self, params: Params) -> None:
        """``params`` was not tried after all."""
        self._used.discard(_key(params))

    def draw(self, rng: random.Random) -> Params | None:
        """A random point that was not tried; None where none is left that is ever drawn."""
        if self.none_left:
            return None
        for _ in range(_ENDLESS_DRAWS if self._size is None else _DRAWS):
            params = self._space.sample(rng)
            if params in self:
                return params
        return None if self._size is None else self._evenly(rng)

    def _evenly(self, rng: random.Random) -> Params:
        """A point that is left of a finite space, of which the likely ones are used up."""
        grid = self._space.grid()
        for _ in range(_DRAWS):
            params = grid[rng.randrange(grid.size)]
            if params in self:
                return params
        # Now so few are left that the grid is hardly longer than what was tried already.
        return rng.choice([params for params in grid if params in self])
