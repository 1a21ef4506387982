"""Which configuration really is the best: the leading ones, judged on seeds nobody chose by."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hpo.benchmark import compare
from hpo.benchmark.analysis import Result
from hpo.benchmark.compare import Interval
from hpo.benchmark.table import Table
from hpo.trial import Direction, Params, TrialState


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A configuration that led: what it was chosen by, and what it reaches on fresh seeds.

    ``p`` is that of a paired t-test, by Holm, that the first candidate is no better; None of
    the first itself, or where there are too few fresh seeds.
    """

    params: Params
    seen: float
    fresh: Interval
    values: list[float]
    p: float | None


@dataclasses.dataclass(frozen=True)
class Winner:
    """The candidates, the best on fresh seeds first; ``bias`` is what choosing added to the
    figure of the one that was best before, in the objective's own units.
    """

    candidates: list[Candidate]
    bias: float
    words: str

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON."""
        return dataclasses.asdict(self)


def leading(results: Sequence[Result], count: int) -> list[tuple[Params, float]]:
    """The best configurations that any search tried, each once, with the best value seen."""
    seen: dict[str, tuple[Params, float]] = {}
    for result in results:
        better = result.scale.direction.better
        for end in result.trace.ends:
            if end.state != TrialState.COMPLETED or end.value is None:
                continue
            key = json.dumps(end.params)
            known = seen.get(key)
            if better(end.value, known[1] if known else None):
                seen[key] = (end.params, end.value)
    largest = bool(results) and results[0].scale.direction is Direction.MAX
    ordered = sorted(seen.values(), key=lambda pair: pair[1], reverse=largest)
    return ordered[:count]


def judged(
    seen: Sequence[tuple[Params, float]],
    fresh: Mapping[str, Sequence[float]],
    direction: Direction,
) -> Winner | None:
    """The winner by the values that each of ``seen`` (by its JSON) has on fresh seeds.

    The seeds are the same for all. None where no candidate has a value on every seed.
    """
    known = [(p, v, list(fresh.get(json.dumps(p), ()))) for p, v in seen]
    most = max((len(values) for _, _, values in known), default=0)
    known = [row for row in known if len(row[2]) == most and most]
    if not known:
        return None
    sign = -1.0 if direction is Direction.MAX else 1.0
    known.sort(key=lambda row: sign * float(np.mean(row[2])))
    p_values = _against_first([row[2] for row in known])
    candidates = [
        Candidate(params, value, compare.mean(values), values, p)
        for (params, value, values), p in zip(known, p_values, strict=True)
    ]
    led = next(c for c in candidates if c.params == _first_seen(seen, candidates))
    return Winner(candidates, led.seen - led.fresh.value, _words(candidates))


def _first_seen(seen: Sequence[tuple[Params, float]], candidates: Sequence[Candidate]) -> Params:
    judged_ones = [candidate.params for candidate in candidates]
    return next(params for params, _ in seen if params in judged_ones)


def _against_first(values: Sequence[Sequence[float]]) -> list[float | None]:
    from scipy import stats

    first = np.asarray(values[0])
    p_values: dict[str, float] = {}
    for number, other in enumerate(values[1:], start=1):
        differences = first - np.asarray(other)
        if len(differences) > 1:
            same = np.ptp(differences) == 0
            p = float(differences[0] == 0) if same else stats.ttest_1samp(differences, 0).pvalue
            p_values[str(number)] = float(p)
    corrected = compare.holm(p_values)
    return [corrected.get(str(number)) for number in range(len(values))]


def _words(candidates: Sequence[Candidate]) -> str:
    if len(candidates) == 1:
        return "one configuration was trained again: there is nothing to compare it with"
    alike = [n for n, c in enumerate(candidates) if n and (c.p is None or c.p >= compare.ALPHA)]
    if not alike:
        return f"the first is better than the other {len(candidates) - 1}"
    if len(alike) == len(candidates) - 1:
        return f"the first {len(candidates)} cannot be told apart"
    listed = " and ".join(str(number + 1) for number in alike)
    return f"the first cannot be told apart from number {listed}"


def bias_in_table(table: Table, results: Sequence[Result]) -> Interval | None:
    """How much better a search's best figure is than what its configuration reaches on the
    curves that the search did not meet; None for a table of one seed.
    """
    if table.seeds < 2:
        return None
    values = table.values()
    rows = {json.dumps(point): row for row, point in enumerate(table.configurations)}
    differences = []
    for result in results:
        best = leading([result], 1)
        if not best:
            continue
        row = rows[json.dumps(best[0][0])]
        met = int(table.drawn(result.cell.seed)[row])
        others = np.delete(values[row], met)
        if np.isfinite(others).any():
            better = best[0][1] - float(np.nanmean(others))
            differences.append(better if table.direction is Direction.MAX else -better)
    return compare.median(differences) if differences else None
