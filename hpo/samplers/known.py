"""What an older run found, as far as it says something about another space."""

from __future__ import annotations

import collections
import dataclasses
import json
import pathlib
from collections.abc import Iterable, Sequence

from hpo.parameter import Parameter
from hpo.samplers.base import Outcome
from hpo.space import SearchSpace
from hpo.study import Study
from hpo.trial import Params, TrialRecord, TrialState, Value


def fitting(
    records: Iterable[TrialRecord], study: Study
) -> tuple[list[Outcome], collections.Counter[str]]:
    """The points with results that lie in the study's space, and how many others there were.

    Those are counted by the first parameter that keeps them out. A trial that failed is
    neither: it may fail no more, and is free to be tried.
    """
    found: list[Outcome] = []
    misfits: collections.Counter[str] = collections.Counter()
    for record in records:
        if record.state in (TrialState.COMPLETED, TrialState.PRUNED):
            name = _misfit(record.params, study.space)
            if name is None:
                found.append(Outcome.of(_in_order(record, study.space), study.objective))
            else:
                misfits[name] += 1
    return found, misfits


def write(path: pathlib.Path, known: Sequence[Outcome]) -> None:
    """Keeps the points in a file: the older run may be deleted."""
    path.write_text(json.dumps([vars(outcome) for outcome in known]))


def read(path: pathlib.Path) -> list[Outcome]:
    """What :func:`write` kept."""
    return [
        Outcome(
            row["params"],
            TrialState(row["state"]),
            row["value"],
            tuple((step, value) for step, value in row["steps"]),
        )
        for row in json.loads(path.read_text())
    ]


def _misfit(params: Params, space: SearchSpace) -> str | None:
    """The first parameter for which ``params`` is no point of ``space``."""
    outside: list[str] = []

    def choose(parameter: Parameter) -> Value:
        value = params.get(parameter.name)
        if not parameter.contains(value):
            outside.append(parameter.name)
        return parameter.initial if value is None else value

    active = space.draw(choose)
    return next(iter(outside + [name for name in params if name not in active]), None)


def _in_order(record: TrialRecord, space: SearchSpace) -> TrialRecord:
    """The record with its parameters in the order of ``space``."""
    params = space.draw(lambda parameter: record.params[parameter.name])
    return dataclasses.replace(record, params=params)
