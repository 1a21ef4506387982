"""A table of learning curves from runs that trained the same points, one run for each seed."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from hpo.benchmark.table import Floats, Table
from hpo.errors import RunError
from hpo.run import Run
from hpo.samplers.base import Proposal, Sampler
from hpo.study import Study
from hpo.trial import Failure, Metrics, Params, TrialRecord, TrialState


def points_of(study: Study, kind: type[Sampler], seed: int, count: int) -> list[Params]:
    """The first ``count`` points of a sampler that pays no heed to results, or all it has."""
    sampler = kind(study, seed)
    points = []
    for number in range(count):
        answer = sampler.ask(f"{number:04d}", [])
        if not isinstance(answer, Proposal):
            break
        points.append(answer.params)
    return points


def table_of(runs: Sequence[Run], source: dict[str, Any]) -> tuple[Table, list[str]]:
    """The table of ``runs``, and in words which configurations are left out and why.

    Left out is one that failed in any run, other than by an objective that is not finite.
    Raises RunError where a run has not come to its end, or all failed.
    """
    curves = [_curves(run) for run in runs]
    study = runs[0].study
    rows, left_out = [], []
    for key, first in curves[0].items():
        found = [own[key] for own in curves]
        if why := next((why for curve in found if (why := curve.left_out)), ""):
            left_out.append(f"{first.params}: {why}")
        else:
            rows.append(found)
    if not rows:
        raise RunError(f"every configuration failed: {left_out[0]}")
    names = sorted({name for row in rows for curve in row for name in curve.names})
    return _assembled(study, names, rows, source), left_out


class _Curve:
    """One configuration with one seed."""

    def __init__(self, records: Sequence[TrialRecord], times: Sequence[dict[int, float]]) -> None:
        self.params = records[0].params
        last = records[-1]
        self.diverged = last.failure is Failure.NAN
        self.left_out = (
            ""
            if last.state is TrialState.COMPLETED or self.diverged
            else (
                f"trial {last.trial_id} ended {last.state} {last.failure or ''}: {last.error or ''}"
            )
        )
        # The step at which it diverged has no figures worth keeping.
        history = last.history[:-1] if self.diverged else last.history
        self.steps: list[Metrics] = [report.metrics for report in history]
        self.names = set.intersection(*map(set, self.steps)) if self.steps else set()
        seconds = seconds_of(records, times)
        self.seconds = [seconds.get(report.step, 0.0) for report in last.history]
        known = sum(self.seconds)
        self.overhead = max((last.fit_s or 0.0) - known, 0.0) if len(records) == 1 else 0.0


def _curves(run: Run) -> dict[str, _Curve]:
    with contextlib.closing(run.reader()) as reader:
        by_trial: dict[str, list[TrialRecord]] = {}
        times: dict[str, list[dict[int, float]]] = {}
        for record in reader.records():
            by_trial.setdefault(record.trial_id, []).append(record)
            at = reader.report_times(record.trial_id, record.attempt)
            times.setdefault(record.trial_id, []).append(at)
    open_ones = [t for t, records in by_trial.items() if not records[-1].state.ended]
    if open_ones or len(by_trial) < run.wanted:
        raise RunError(f"run {run.id} has not ended: `launch.py resume {run.id}`")
    found = [_Curve(records, times[trial_id]) for trial_id, records in by_trial.items()]
    return {json.dumps(curve.params): curve for curve in found}


def seconds_of(
    records: Sequence[TrialRecord], times: Sequence[dict[int, float]]
) -> dict[int, float]:
    """The seconds of each step, by the attempt that trained it.

    The first step's begin when the trial was handed out: they hold what starting it takes.
    """
    seconds: dict[int, float] = {}
    earlier: dict[int, Metrics] = {}
    for record, at in zip(records, times, strict=True):
        since = record.started_at
        for report in record.history:
            came = at.get(report.step)
            # A step that is there already was taken over from the attempt before.
            taken_over = earlier.get(report.step) == report.metrics
            if came is not None and since is not None and not taken_over:
                seconds[report.step] = max(came - since, 1e-3)
            since = came
        earlier = {report.step: report.metrics for report in record.history}
    return seconds


def _assembled(
    study: Study, names: list[str], rows: list[list[_Curve]], source: dict[str, Any]
) -> Table:
    steps = max(len(curve.steps) + curve.diverged for row in rows for curve in row)
    shape = (len(rows), len(rows[0]))
    metrics = np.full((*shape, steps, len(names)), np.nan)
    seconds: Floats = np.full((*shape, steps), np.nan)
    for row, curves in enumerate(rows):
        for seed, curve in enumerate(curves):
            for place, step in enumerate(curve.steps):
                metrics[row, seed, place] = [step.get(name, np.nan) for name in names]
            seconds[row, seed, : len(curve.seconds)] = curve.seconds

    def each(what: str) -> Any:
        return np.array([[getattr(curve, what) for curve in row] for row in rows])

    timed = all(all(curve.seconds) for row in rows for curve in row)
    return Table(
        name=study.name,
        space=study.space,
        objective=study.objective,
        direction=study.direction,
        metric_names=tuple(names),
        configurations=tuple(row[0].params for row in rows),
        metrics=metrics,
        lengths=np.array([[len(curve.steps) for curve in row] for row in rows]),
        diverged=each("diverged").astype(bool),
        seconds=seconds if timed else None,
        overhead=each("overhead").astype(float),
        grid=study.grid,
        source=source,
    )
