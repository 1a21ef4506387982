"""Tables of learning curves that are made up, so that what is best in them is known."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from hpo.benchmark.table import Table
from hpo.parameter import Condition, Kind, Parameter
from hpo.space import SearchSpace
from hpo.trial import Direction

DEEP = (Condition("deep", (True,)),)
SPACE = SearchSpace(
    [
        Parameter("rate", Kind.FLOAT, 1e-4, low=1e-4, high=1.0, sampling="log"),
        Parameter("momentum", Kind.FLOAT, 0.0, low=0.0, high=1.0),
        Parameter("kind", Kind.CHOICE, "a", values=("a", "b", "c")),
    ]
)
CONDITIONAL = SearchSpace(
    [
        *SPACE.parameters,
        Parameter("deep", Kind.BOOLEAN, False),
        Parameter("layers", Kind.INT, low=1, high=9, conditions=DEEP),
    ]
)


def made_up(
    rows: int = 60,
    *,
    space: SearchSpace = SPACE,
    direction: Direction = Direction.MIN,
    noise: float = 0.0,
    slope: float = 1.0,
    seeds: int = 2,
    steps: int = 4,
    seconds: float | None = 10.0,
    seed: int = 0,
) -> Table:
    """A bowl over ``rate`` and ``momentum``, the deeper the larger ``slope`` is, with ``noise``."""
    points = random.Random(f"{seed}: points")
    rng = np.random.default_rng(seed)
    configurations = [space.sample(points) for _ in range(rows)]
    units = [[p.to_unit(c[p.name]) for p in SPACE.parameters[:2]] for c in configurations]
    depth = slope * ((np.array(units) - 0.6) ** 2).sum(axis=1)[:, None]
    final = depth + noise * rng.normal(size=(rows, seeds))
    falling = 2.0 ** -np.arange(1.0, steps + 1)
    loss = final[..., None] + falling - falling[-1]
    shape = (rows, seeds, steps)
    return Table(
        name="made-up",
        space=space,
        objective="loss",
        direction=direction,
        metric_names=("loss",),
        configurations=tuple(configurations),
        metrics=(loss if direction is Direction.MIN else -loss)[..., None],
        lengths=np.full(shape[:2], steps),
        diverged=np.zeros(shape[:2], dtype=bool),
        seconds=None if seconds is None else np.full(shape, seconds),
    )


def sampled(space: SearchSpace, seed: int, most: int = 20) -> list[dict[str, Any]]:
    """Up to ``most`` different random points of ``space``."""
    rng = random.Random(seed)
    points: list[dict[str, Any]] = []
    for _ in range(10 * most):
        point = space.sample(rng)
        if point not in points:
            points.append(point)
    return points[:most]
