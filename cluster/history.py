"""What `run --from RUN` takes from an older run, whichever engine and sampler made it."""

from __future__ import annotations

import contextlib
import pathlib
import sys

from hpo.errors import UsageError
from hpo.run import open_run
from hpo.samplers.base import Outcome
from hpo.samplers.known import fitting
from hpo.study import Study


def results_of(runs: pathlib.Path, run_id: str, study: Study) -> list[Outcome]:
    """The results of the run ``run_id`` that lie in the space of ``study``; says how many.

    Raises RunError where there is no such run, UsageError where none of its results say
    anything about this study.
    """
    older = open_run(runs, run_id)
    theirs = older.study.objective, older.study.direction
    if theirs != (study.objective, study.direction):
        raise UsageError(
            f"--from {run_id}: its objective is {theirs[0]} ({theirs[1]}), that of "
            f"{study.name} is {study.objective} ({study.direction}): take a run with the same"
        )
    with contextlib.closing(older.reader()) as reader:
        # A trial's last attempt is the one that counts.
        records = {record.trial_id: record for record in reader.records()}
    found, misfits = fitting(records.values(), study)
    outside = ", ".join(f"{count} for {name!r}" for name, count in misfits.items())
    if not found:
        why = (
            f"none of its points lies in the space ({outside})" if outside else "it has no results"
        )
        raise UsageError(f"--from {run_id}: {why}: take another run, or leave it out")
    rest = f"; {misfits.total()} outside the space: {outside}" if outside else ""
    print(f"from {run_id}: {len(found)} results{rest}", file=sys.stderr, flush=True)
    return found
