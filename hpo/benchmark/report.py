"""What the report of a benchmark says."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from hpo.benchmark import figures
from hpo.benchmark.analysis import Analysis, Method, Result, Task
from hpo.benchmark.carry_out import Outcome
from hpo.benchmark.compare import Interval
from hpo.benchmark.document import Document, Grid, Section
from hpo.benchmark.drawing import Looks, looks_of
from hpo.benchmark.point_report import once, points
from hpo.benchmark.regret import AXES, FRACTIONS
from hpo.benchmark.winner import Winner
from hpo.benchmark.words import assigned, interval, number, percent
from hpo.space import SearchSpace
from hpo.trial import Direction, TrialState

_FEW_TASKS = 5


@dataclasses.dataclass(frozen=True)
class Ground:
    """What a benchmark was made on: a study or a table, and all that is to be stated."""

    title: str
    space: SearchSpace
    objective: str
    direction: Direction
    stated: Sequence[tuple[str, str]]
    notes: Sequence[str]


def of_benchmark(
    ground: Ground,
    analysis: Analysis,
    results: Sequence[Result],
    failed: Sequence[Outcome],
    unsupported: Sequence[Any],
    winner: Winner | None,
    bias: Interval | None,
) -> Document:
    """The report of a benchmark."""
    looks = looks_of(list(dict.fromkeys(r.cell.method for r in results)))
    sections = [_stated(ground)]
    if failed or unsupported:
        sections.append(_missing(failed, unsupported))
    for task in analysis.tasks:
        sections.append(_task(task, results, looks, analysis.baseline))
    if len(analysis.tasks) > 1:
        sections.append(_over_tasks(analysis, looks))
    sections += _winner(winner, bias, ground)
    tried = [
        (end.params, end.value)
        for result in results
        for end in result.trace.ends
        if end.state == TrialState.COMPLETED and end.value is not None
    ]
    sections.append(points(ground.space, once(tried), ground.objective, ground.direction))
    data = {
        "title": ground.title,
        "stated": dict(ground.stated),
        "notes": list(ground.notes),
        **analysis.to_json(),
        "failed": [{**dataclasses.asdict(o.cell), "error": o.error} for o in failed],
        "unsupported": [dataclasses.asdict(pair) for pair in unsupported],
        "winner": winner.to_json() if winner else None,
        "selection_bias": dataclasses.asdict(bias) if bias else None,
    }
    return Document(ground.title, sections, data)


def _stated(ground: Ground) -> Section:
    return Section("What was run", ground.notes, [Grid(("what", "which"), ground.stated)])


def _missing(failed: Sequence[Outcome], unsupported: Sequence[Any]) -> Section:
    rows = [
        (o.cell.method, str(o.cell.workers), str(o.cell.seed), f"failed: {o.error}") for o in failed
    ]
    rows += [
        (f"{pair.engine} / {pair.sampler} + {pair.pruner}", "", "", f"not supported: {pair.why}")
        for pair in unsupported
    ]
    return Section("What is missing", (), [Grid(("method", "workers", "seed", "why"), rows)])


def _task(
    task: Task,
    results: Sequence[Result],
    looks: Mapping[str, Looks],
    baseline: str | None,
) -> Section:
    own = [result for result in results if result.cell.workers == task.workers]
    rows = [dataclasses.asdict(method) for method in task.methods]
    pictures = [
        dataclasses.replace(picture, name=f"{picture.name}-w{task.workers}")
        for picture in (
            *(figures.anytime(_plain(task.curves[axis]), axis, looks) for axis in AXES),
            figures.regrets(rows, looks),
            *([figures.ranks(vars(task.ranks), looks, "seeds")] if task.ranks else []),
            figures.shares(rows),
            figures.busy(_busy(own), looks),
        )
    ]
    words = [f"By the regret at the end of the budget, {task.leaders}."]
    if task.ranks:
        words.append(_rank_words(task.ranks, "seeds of one task, which says nothing of others"))
    grids = [
        _regret_grid(task.methods),
        _versus_grid(task.methods, baseline),
        _cost_grid(task.methods),
    ]
    return Section(f"{task.workers} workers", words, grids, pictures)


def _plain(curves: Mapping[str, Any]) -> dict[str, Any]:
    return {**curves, "methods": {n: vars(band) for n, band in curves["methods"].items()}}


def _busy(results: Sequence[Result]) -> dict[str, list[tuple[float, ...]]]:
    found: dict[str, list[tuple[float, ...]]] = {}
    for result in results:
        found.setdefault(result.cell.method, []).append(result.trace.busy)
    return found


def _rank_words(ranks: Any, over: str) -> str:
    if not ranks.differ:
        return f"Friedman's test finds no difference (p = {ranks.p:.3g}) over {over}."
    return (
        f"Friedman's test: the methods differ (p = {ranks.p:.3g}) over {ranks.blocks} {over}; "
        f"two of them do where their average ranks are {ranks.critical:.2f} apart (Nemenyi)."
    )


def _regret_grid(methods: Sequence[Method]) -> Grid:
    fractions = [f"{fraction:.0%}".rstrip("%") for fraction in FRACTIONS]
    headers = ("method", "seeds", *(f"log regret at {f} %" for f in fractions), "best value")
    return Grid(
        headers,
        [
            (
                method.name,
                str(method.searches),
                *(interval(method.regret[fraction]) for fraction in fractions),
                interval(method.best),
            )
            for method in methods
        ],
    )


def _versus_grid(methods: Sequence[Method], baseline: str | None) -> Grid:
    headers = (
        f"against {baseline or 'random search, which is not here'}",
        "verdict",
        "difference in log regret",
        "chance to be better",
        "p (Wilcoxon, Holm)",
        "random search's trials for one",
        "from random search to the best",
    )
    rows = []
    for method in methods:
        against, is_ground = method.versus_random, method.name == baseline
        rows.append(
            (
                method.name,
                against.verdict if against else "the reference" if is_ground else "",
                interval(against.difference) if against else "",
                percent(against.chance) if against else "",
                f"{against.p:.3g}" if against else "",
                _at_least(method) if against else "",
                interval(method.sandwich) if against else "",
            )
        )
    return Grid(headers, rows)


def _at_least(method: Method) -> str:
    if method.speed_up is None:
        return ""
    return f"{'at least ' if method.speed_up_at_least else ''}{interval(method.speed_up)}"


def _cost_grid(methods: Sequence[Method]) -> Grid:
    headers = (
        "method",
        "seconds to the end",
        "node-seconds",
        "training",
        "of that lost",
        "waiting for a trial",
        "the sampler thought",
    )
    return Grid(
        headers,
        [
            (
                method.name,
                interval(method.makespan_s),
                interval(method.node_s),
                percent(method.utilisation),
                percent(method.lost),
                percent(method.waiting),
                percent(method.suggesting) if method.suggesting else "not measured",
            )
            for method in methods
        ],
    )


def _over_tasks(analysis: Analysis, looks: Mapping[str, Looks]) -> Section:
    pictures = [figures.scaling(analysis.to_json()["tasks"], looks)]
    words = []
    if analysis.ranks:
        few = ", few for such a test" if analysis.ranks.blocks < _FEW_TASKS else ""
        words.append(_rank_words(analysis.ranks, f"numbers of workers{few}"))
        pictures.append(figures.ranks(vars(analysis.ranks), looks, "numbers of workers"))
    return Section("Over all numbers of workers", words, (), pictures)


def _winner(winner: Winner | None, bias: Interval | None, ground: Ground) -> list[Section]:
    if bias:
        luck = (
            f"A search's best {ground.objective} is better by {interval(bias)} than what the same "
            "configuration reaches with seeds that the search did not meet: so much of it was luck."
        )
        return [Section("The winner's luck", [luck])]
    if winner is None:
        return []
    rows = [
        (
            str(place),
            assigned(candidate.params),
            number(candidate.seen),
            interval(candidate.fresh),
            "" if candidate.p is None else f"{candidate.p:.3g}",
        )
        for place, candidate in enumerate(winner.candidates, start=1)
    ]
    seeds = len(winner.candidates[0].values)
    words = [
        f"The configurations that led were trained again with {seeds} fresh seeds: {winner.words}. "
        f"Of the figure of the one that led, {number(winner.bias)} was luck."
    ]
    headers = ("", "configuration", "by which it led", "on fresh seeds", "p against the first")
    return [Section("The winner", words, [Grid(headers, rows)])]
