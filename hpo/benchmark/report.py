"""What a report says: of a benchmark, and of single runs."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from hpo.benchmark import figures
from hpo.benchmark.analysis import Analysis, Method, Result, Task
from hpo.benchmark.carry_out import Outcome
from hpo.benchmark.compare import Interval
from hpo.benchmark.document import Document, Grid, Section
from hpo.benchmark.importance import LEAST, importance
from hpo.benchmark.regret import AXES, FRACTIONS
from hpo.benchmark.trace import Trace
from hpo.benchmark.winner import Winner
from hpo.run import Run
from hpo.space import SearchSpace
from hpo.trial import Direction, Params, TrialState

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
    looks = figures.looks_of(list(dict.fromkeys(r.cell.method for r in results)))
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
    sections.append(_points(ground.space, _once(tried), ground.objective, ground.direction))
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
    looks: Mapping[str, figures.Looks],
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
                *(_interval(method.regret[fraction]) for fraction in fractions),
                _interval(method.best),
            )
            for method in methods
        ],
    )


def _versus_grid(methods: Sequence[Method], baseline: str | None) -> Grid:
    headers = (
        f"against {baseline or 'random search, which is not here'}",
        "difference in log regret",
        "chance to be better",
        "p (Wilcoxon, Holm)",
        "random search's trials for one",
        "from random search to the best",
        "verdict",
    )
    rows = []
    for method in methods:
        against = method.versus_random
        rows.append(
            (
                method.name,
                _interval(against.difference) if against else "",
                _percent(against.chance) if against else "",
                f"{against.p:.3g}" if against else "",
                _at_least(method),
                _interval(method.sandwich),
                against.verdict if against else "the ground itself",
            )
        )
    return Grid(headers, rows)


def _at_least(method: Method) -> str:
    if method.speed_up is None:
        return ""
    return f"{'at least ' if method.speed_up_at_least else ''}{_interval(method.speed_up)}"


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
                _interval(method.makespan_s),
                _interval(method.node_s),
                _percent(method.utilisation),
                _percent(method.lost),
                _percent(method.waiting),
                _percent(method.suggesting) if method.suggesting else "not measured",
            )
            for method in methods
        ],
    )


def _over_tasks(analysis: Analysis, looks: Mapping[str, figures.Looks]) -> Section:
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
            f"A search's best {ground.objective} is better by {_interval(bias)} than what the same "
            "configuration reaches with seeds that the search did not meet: so much of it was luck."
        )
        return [Section("The winner's luck", [luck])]
    if winner is None:
        return []
    rows = [
        (
            str(number),
            _assigned(candidate.params),
            _number(candidate.seen),
            _interval(candidate.fresh),
            "" if candidate.p is None else f"{candidate.p:.3g}",
        )
        for number, candidate in enumerate(winner.candidates, start=1)
    ]
    seeds = len(winner.candidates[0].values)
    words = [
        f"The configurations that led were trained again with {seeds} fresh seeds: {winner.words}. "
        f"Of the figure of the one that led, {_number(winner.bias)} was luck."
    ]
    headers = ("", "configuration", "by which it led", "on fresh seeds", "p against the first")
    return [Section("The winner", words, [Grid(headers, rows)])]


def _points(
    space: SearchSpace,
    tried: Sequence[tuple[Params, float]],
    objective: str,
    direction: Direction,
) -> Section:
    if not tried:
        return Section("The points", ["No trial has completed."])
    pictures = [figures.parallel(space, tried, objective, direction)]
    shares = importance(space, tried, direction)
    words = []
    if shares:
        caption = f"Share of the differences in {objective} that each parameter explains (fANOVA)"
        pictures.append(figures.importance(shares, caption))
        rest = [p.name for p in space.tunable if p.name not in shares]
        if rest:
            words.append(f"Not every point has {', '.join(rest)}: no importance is given for it.")
    else:
        words.append(f"Importance needs {LEAST} points that differ; there are {len(tried)}.")
    return Section("The points", words, (), pictures)


def _once(tried: Sequence[tuple[Params, float]]) -> list[tuple[Params, float]]:
    """Each configuration once, with the mean of its values."""
    values: dict[str, list[float]] = {}
    params: dict[str, Params] = {}
    for point, value in tried:
        values.setdefault(json.dumps(point), []).append(value)
        params[json.dumps(point)] = point
    return [(params[key], sum(own) / len(own)) for key, own in values.items()]


# --- runs ---------------------------------------------------------------------------------


def of_runs(runs: Sequence[tuple[Run, Trace]]) -> Document:
    """The report of one run, or of several of the same study."""
    first = runs[0][0].study
    looks = figures.looks_of([run.id for run, _ in runs])
    headers = ["run", "engine", "sampler", "pruner", "seed", "trials", f"best {first.objective}"]
    headers += ["seconds", "training", "lost"]
    rows = [_run_row(run, trace) for run, trace in runs]
    lines = {run.id: _line(run, trace) for run, trace in runs}
    dots = {run.id: _dots(trace) for run, trace in runs}
    tried = _once(
        [(end.params, end.value) for _, trace in runs for end in trace.ends if _counts(end)]  # type: ignore[misc]
    )
    sections = [
        Section(
            "Runs",
            (),
            [Grid(headers, rows)],
            [
                figures.best_so_far(lines, dots, first.objective, looks),
                figures.busy({run.id: [trace.busy] for run, trace in runs}, looks),
            ],
        ),
        _best_points(first.objective, runs),
        _points(first.space, tried, first.objective, first.direction),
    ]
    data = {
        "runs": [
            {"id": run.id, "study": run.study.name, "objective": run.study.objective}
            | trace.to_json()
            for run, trace in runs
        ],
        "importance": importance(first.space, tried, first.direction),
    }
    title = f"{first.name}: {', '.join(run.id for run, _ in runs)}"
    return Document(title, sections, data)


def _counts(end: Any) -> bool:
    return end.state == TrialState.COMPLETED and end.value is not None


def _run_row(run: Run, trace: Trace) -> tuple[str, ...]:
    best = trace.best(run.study.direction)
    paid = trace.present_s or math.nan
    asked = run.request
    return (
        run.id,
        asked.engine,
        asked.sampler,
        asked.pruner,
        str(run.seed),
        str(len(trace.ends)),
        _number(best[-1]) if best else "",
        _number(trace.makespan_s),
        f"{trace.busy_s / paid:.0%}" if trace.present_s else "",
        f"{trace.lost_s / paid:.0%}" if trace.present_s else "",
    )


def _line(run: Run, trace: Trace) -> list[tuple[float, float]]:
    best = trace.best(run.study.direction)
    known = [(end.at_s, value) for end, value in zip(trace.ends, best, strict=True)]
    return [(at, value) for at, value in known if not math.isnan(value)]


def _dots(trace: Trace) -> list[tuple[float, float]]:
    return [(end.at_s, end.value) for end in trace.ends if end.value is not None]


def _best_points(objective: str, runs: Sequence[tuple[Run, Trace]]) -> Section:
    direction = runs[0][0].study.direction
    sign = -1.0 if direction is Direction.MAX else 1.0
    done = [(run.id, end) for run, trace in runs for end in trace.ends if _counts(end)]
    done.sort(key=lambda pair: sign * (pair[1].value or 0.0))
    rows = [
        (run_id, end.trial_id, _number(end.value), _assigned(end.params))
        for run_id, end in done[:10]
    ]
    return Section(
        "The best trials",
        ["By the value of their best epoch; the first one's lead is partly luck."],
        [Grid(("run", "trial", objective, "parameters"), rows)],
    )


# --- how numbers read ---------------------------------------------------------------------


def _number(value: float | None) -> str:
    if value is None or math.isnan(value):
        return ""
    return f"{value:.4g}"


def _interval(found: Interval | None) -> str:
    if found is None:
        return ""
    if found.low is None or found.high is None:
        return f"{found.value:.3g} (one search)"
    return f"{found.value:.3g} [{found.low:.3g}, {found.high:.3g}]"


def _percent(found: Interval) -> str:
    if found.low is None or found.high is None:
        return f"{found.value:.1%}"
    return f"{found.value:.1%} [{found.low:.1%}, {found.high:.1%}]"


def _assigned(params: Params) -> str:
    return ", ".join(f"{name} {_value(value)}" for name, value in params.items())


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
