"""What every report says of the points that were tried."""

from __future__ import annotations

import json
from collections.abc import Sequence

from hpo.benchmark import point_figures
from hpo.benchmark.document import Section
from hpo.benchmark.importance import LEAST, importance
from hpo.space import SearchSpace
from hpo.trial import Direction, Params


def points(
    space: SearchSpace,
    tried: Sequence[tuple[Params, float]],
    objective: str,
    direction: Direction,
) -> Section:
    if not tried:
        return Section("The points", ["No trial has completed."])
    pictures = [point_figures.parallel(space, tried, objective, direction)]
    shares = importance(space, tried, direction)
    words = []
    if shares:
        caption = f"Share of the differences in {objective} that each parameter explains (fANOVA)"
        pictures.append(point_figures.importance(shares, caption))
        rest = [p.name for p in space.tunable if p.name not in shares]
        if rest:
            words.append(f"Not every point has {', '.join(rest)}: no importance is given for it.")
    else:
        words.append(f"Importance needs {LEAST} points that differ; there are {len(tried)}.")
    return Section("The points", words, (), pictures)


def once(tried: Sequence[tuple[Params, float]]) -> list[tuple[Params, float]]:
    """Each configuration once, with the mean of its values."""
    values: dict[str, list[float]] = {}
    params: dict[str, Params] = {}
    for point, value in tried:
        values.setdefault(json.dumps(point), []).append(value)
        params[json.dumps(point)] = point
    return [(params[key], sum(own) / len(own)) for key, own in values.items()]
