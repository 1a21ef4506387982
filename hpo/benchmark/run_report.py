"""The report of single runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from hpo.benchmark import figures, point_figures
from hpo.benchmark.document import Document, Grid, Section
from hpo.benchmark.drawing import looks_of
from hpo.benchmark.importance import importance
from hpo.benchmark.point_report import once, points
from hpo.benchmark.trace import Trace
from hpo.benchmark.words import assigned, number
from hpo.run import Run
from hpo.trial import Direction, TrialState


def of_runs(runs: Sequence[tuple[Run, Trace]]) -> Document:
    """The report of one run, or of several of the same study."""
    first = runs[0][0].study
    looks = looks_of([run.id for run, _ in runs])
    headers = ["run", "engine", "sampler", "pruner", "seed", "trials", f"best {first.objective}"]
    headers += ["seconds", "training", "lost"]
    rows = [_run_row(run, trace) for run, trace in runs]
    lines = {run.id: _line(run, trace) for run, trace in runs}
    dots = {run.id: _dots(trace) for run, trace in runs}
    tried = once(
        [(end.params, end.value) for _, trace in runs for end in trace.ends if _counts(end)]  # type: ignore[misc]
    )
    sections = [
        Section(
            "Runs",
            (),
            [Grid(headers, rows)],
            [
                point_figures.best_so_far(lines, dots, first.objective, looks),
                figures.busy({run.id: [trace.busy] for run, trace in runs}, looks),
            ],
        ),
        _best_points(first.objective, runs),
        points(first.space, tried, first.objective, first.direction),
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
        number(best[-1]) if best else "",
        number(trace.makespan_s),
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
        (run_id, end.trial_id, number(end.value), assigned(end.params)) for run_id, end in done[:10]
    ]
    return Section(
        "The best trials",
        ["By the value of their best epoch; the first one's lead is partly luck."],
        [Grid(("run", "trial", objective, "parameters"), rows)],
    )
