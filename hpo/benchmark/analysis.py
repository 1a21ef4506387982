"""All that a benchmark's traces say, as plain data: what reports are made from."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hpo.benchmark import compare
from hpo.benchmark.compare import Interval, Ranks, Versus
from hpo.benchmark.matrix import Cell
from hpo.benchmark.regret import (
    AXES,
    FRACTIONS,
    Floats,
    Scale,
    at_fraction,
    curve,
    log_regret,
    places,
)
from hpo.benchmark.trace import Trace
from hpo.trial import Direction, TrialState


@dataclasses.dataclass(frozen=True)
class Result:
    """What came of a cell that ran to its end, with the scale of its seed."""

    cell: Cell
    trace: Trace
    scale: Scale


@dataclasses.dataclass(frozen=True)
class Band:
    """A median over seeds with its interval, at the places of an axis."""

    middle: list[float]
    low: list[float]
    high: list[float]


@dataclasses.dataclass(frozen=True)
class Method:
    """One method at one number of workers.

    ``regret`` is the decimal logarithm of the normalised regret, by the percentage of the
    budget; ``best`` the best value found. ``speed_up`` is how many trials random search needs
    for each of this method's, ``sandwich`` how far it is from random search (0) to the best
    there is (1). The shares are of node-seconds, ``suggesting`` is of the makespan.
    """

    name: str
    searches: int
    regret: dict[str, Interval]
    best: Interval
    versus_random: Versus | None
    speed_up: Interval | None
    speed_up_at_least: bool
    sandwich: Interval | None
    makespan_s: Interval
    node_s: Interval
    utilisation: Interval
    waiting: Interval
    lost: Interval
    suggesting: Interval | None


@dataclasses.dataclass(frozen=True)
class Task:
    """What was compared on the same ground: one number of workers, every method and seed."""

    workers: int
    methods: list[Method]
    ranks: Ranks | None
    curves: dict[str, dict[str, Any]]
    leaders: str


@dataclasses.dataclass(frozen=True)
class Analysis:
    """A whole benchmark. ``ranks`` are over its tasks, where there are enough of these."""

    tasks: list[Task]
    ranks: Ranks | None
    baseline: str | None

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON."""
        found = dataclasses.asdict(self)
        for task, own in zip(found["tasks"], self.tasks, strict=True):
            for method, row in zip(own.methods, task["methods"], strict=True):
                if method.versus_random:
                    row["versus_random"]["verdict"] = method.versus_random.verdict
                    row["versus_random"]["differs"] = method.versus_random.differs
        return found


def analyse(results: Sequence[Result], axis: str) -> Analysis:
    """The analysis of ``results``, compared at fractions of what they spent on ``axis``."""
    baseline = baseline_of([result.cell for result in results])
    tasks = [
        _task(workers, [r for r in results if r.cell.workers == workers], axis, baseline)
        for workers in sorted({result.cell.workers for result in results})
    ]
    return Analysis(tasks, _over_tasks(tasks), baseline)


def baseline_of(cells: Sequence[Cell]) -> str | None:
    """The method that is random search without a pruner, ours before another's."""
    plain = [cell for cell in cells if cell.pruner == "none"]
    for name in ("random", "kt-random", "optuna:random", "ray:random"):
        for cell in plain:
            if cell.sampler == name:
                return cell.method
    return None


def _task(workers: int, results: Sequence[Result], axis: str, baseline: str | None) -> Task:
    by_method: dict[str, dict[int, Result]] = {}
    for result in results:
        by_method.setdefault(result.cell.method, {})[result.cell.seed] = result
    budget = max((_spent(result.trace, axis) for result in results), default=0.0)
    final = {
        name: {seed: _log_at(result, axis, budget, 1.0) for seed, result in own.items()}
        for name, own in by_method.items()
    }
    against = _against(final, baseline)
    ground = by_method.get(baseline or "", {})
    methods = [
        _method(name, list(own.values()), list(ground.values()), axis, budget, against.get(name))
        for name, own in by_method.items()
    ]
    # Of equal medians by the mean, or who found nothing half of the time might come first.
    means = {name: float(np.mean(list(values.values()))) for name, values in final.items()}
    methods.sort(key=lambda method: (method.regret["100"].value, means[method.name]))
    shared = _shared_seeds(final)
    together = {name: [values[seed] for seed in shared] for name, values in final.items()}
    ranked = compare.ranks(together) if shared else None
    return Task(
        workers=workers,
        methods=methods,
        ranks=ranked,
        curves={name: _curves(by_method, name) for name in AXES},
        leaders=leaders([method.name for method in methods], together, ranked),
    )


def _spent(trace: Trace, axis: str) -> float:
    if not trace.ends:
        return 0.0
    return float(len(trace.ends)) if axis == "trials" else float(getattr(trace.ends[-1], axis))


def _log_at(result: Result, axis: str, budget: float, fraction: float) -> float:
    regret = at_fraction(result.trace, result.scale, axis, budget, fraction)
    return float(log_regret(np.array([regret]))[0])


def _shared_seeds(by_method: Mapping[str, Mapping[int, Any]]) -> list[int]:
    """The seeds with which every method came to its end: only these are pairs."""
    own = [set(found) for found in by_method.values()]
    return sorted(set.intersection(*own)) if own else []


def _against(final: Mapping[str, Mapping[int, float]], baseline: str | None) -> dict[str, Versus]:
    """Each method against random search, on the seeds that both have."""
    if baseline is None or baseline not in final:
        return {}
    others = {name: values for name, values in final.items() if name != baseline}
    differences = {}
    for name, values in others.items():
        pairs = sorted(values.keys() & final[baseline].keys())
        if pairs:
            differences[name] = [values[s] - final[baseline][s] for s in pairs]
    return compare.of_differences(differences)


def leaders(
    order: Sequence[str], results: Mapping[str, Sequence[float]], ranked: Ranks | None
) -> str:
    """In words, which of the first three can be told apart; ``order`` has the best first.

    Who comes first of several does so partly by luck: where Friedman's test finds no
    difference among all of them, none is claimed among the first.
    """
    first, *others = order[:3]
    if not others or not results[first]:
        return f"{first} stands alone: there is nothing to compare it with"
    found = compare.versus(results[first], {name: results[name] for name in others})
    luck = ranked is not None and not ranked.differ
    alike = [name for name in others if luck or not found[name].differs]
    if not alike:
        return f"{first} is better than the next {len(others)}"
    told_apart = [name for name in others if name not in alike]
    words = f"{first} cannot be told apart from {' and '.join(alike)}"
    more = [found[name].more_seeds for name in alike]
    if all(n is not None for n in more):
        words += f"; {compare.needed(max(n or 0 for n in more))}"
    return words + (f"; it is better than {' and '.join(told_apart)}" if told_apart else "")


def _method(
    name: str,
    own: Sequence[Result],
    ground: Sequence[Result],
    axis: str,
    budget: float,
    versus_random: Versus | None,
) -> Method:
    traces = [result.trace for result in own]

    def share(of: Callable[[Trace], float]) -> Interval:
        paid = [of(trace) / trace.present_s for trace in traces if trace.present_s > 0]
        return compare.median(paid or [0.0])

    thought = [t.suggesting_s / t.makespan_s for t in traces if t.suggesting_s and t.makespan_s]
    speed_up, at_least = _speed_up(own, ground)
    return Method(
        name=name,
        searches=len(own),
        regret={
            f"{fraction:.0%}".rstrip("%"): compare.median(
                [_log_at(result, axis, budget, fraction) for result in own]
            )
            for fraction in FRACTIONS
        },
        best=compare.median([_final(result) for result in own]),
        versus_random=versus_random,
        speed_up=speed_up,
        speed_up_at_least=at_least,
        sandwich=_sandwich(own, ground),
        makespan_s=compare.median([trace.makespan_s for trace in traces]),
        node_s=compare.median([trace.present_s for trace in traces]),
        utilisation=share(lambda trace: min(trace.busy_s, trace.present_s)),
        waiting=share(lambda trace: max(trace.present_s - trace.busy_s, 0.0)),
        lost=share(lambda trace: trace.lost_s),
        suggesting=compare.median(thought) if thought else None,
    )


def _final(result: Result) -> float:
    best = result.trace.best(result.scale.direction)
    return best[-1] if best and not math.isnan(best[-1]) else result.scale.median


def _regret(result: Result) -> float:
    return float(result.scale.regret([_final(result)])[0])


def _speed_up(own: Sequence[Result], ground: Sequence[Result]) -> tuple[Interval | None, bool]:
    """How many trials of random search each trial is worth, and whether it is at least that.

    From the regrets of all of random search's trials: the n of which the best one is, in the
    median, as good as what the method found. Beyond what so many trials can show it is "at
    least".
    """
    pool = np.concatenate(
        [result.scale.regret(_values(result.trace)) for result in ground] or [np.array([])]
    )
    if not len(pool):
        return None, False
    found, capped = [], 0
    for result in own:
        share = float(np.mean(pool <= _regret(result) + 1e-12))
        needed = math.log(0.5) / math.log1p(-share) if 0 < share < 1 else 1.0
        if share == 0:
            needed, capped = float(len(pool)), capped + 1
        found.append(max(needed, 1.0) / max(len(result.trace.ends), 1))
    return compare.median(found), capped * 2 > len(own)


def _values(trace: Trace) -> list[float]:
    done = [end.value for end in trace.ends if end.state == TrialState.COMPLETED]
    return [value for value in done if value is not None]


def _sandwich(own: Sequence[Result], ground: Sequence[Result]) -> Interval | None:
    """From random search, 0, to the best there is, 1; None where random search found that."""
    at_random = {result.cell.seed: _regret(result) for result in ground}
    pairs = [(_regret(r), at_random[r.cell.seed]) for r in own if r.cell.seed in at_random]
    if not pairs or np.median([there for _, there in pairs]) == 0:
        return None
    middle = float(np.median([there for _, there in pairs]))
    return compare.median([1 - here / middle for here, _ in pairs])


def _curves(by_method: Mapping[str, Mapping[int, Result]], axis: str) -> dict[str, Any]:
    """The incumbent's log regret along ``axis``, by method."""
    traces = [[result.trace for result in own.values()] for own in by_method.values()]
    at, beyond = places(traces, axis)
    return {
        "at": at.tolist(),
        "beyond": beyond,
        "methods": {
            name: _band([log_regret(curve(r.trace, r.scale, axis, at)) for r in own.values()])
            for name, own in by_method.items()
        },
    }


def _band(rows: Sequence[Floats]) -> Band:
    middle, low, high = compare.medians(np.array(rows))
    return Band(middle.tolist(), low.tolist(), high.tolist())


def _over_tasks(tasks: Sequence[Task]) -> Ranks | None:
    """The ranks of the methods that every task has, by their medians."""
    if len(tasks) < 2:
        return None
    shared = set.intersection(*({m.name for m in task.methods} for task in tasks))
    medians = {
        name: [
            next(m.regret["100"].value for m in task.methods if m.name == name) for task in tasks
        ]
        for name in sorted(shared)
    }
    return compare.ranks(medians)


def scale_of_results(traces: Mapping[Cell, Trace], direction: Direction) -> Scale:
    """The scale of searches whose space nobody knows: the best that any found, and the
    median of what random search tried, or where there is none of what all did.
    """
    values = {cell: _values(trace) for cell, trace in traces.items()}
    baseline = baseline_of(list(traces))
    tried = [v for cell, own in values.items() if cell.method == baseline for v in own]
    everything = [value for own in values.values() for value in own]
    best = Scale.of(everything, direction).best
    return Scale(best, Scale.of(tried or everything, direction).median, direction)
