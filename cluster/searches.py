"""The searches of a benchmark as runs that every other verb can open."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cluster.cells import how_to_train, last_words, search
from cluster.cells_there import search_there
from hpo.errors import RunError, TuneFleetError
from hpo.registry import SAMPLERS
from hpo.run import Run, open_run
from hpo.samplers.base import seed_of
from hpo.study import Study

if TYPE_CHECKING:
    from hpo.benchmark.folder import Folder
    from hpo.benchmark.matrix import Cell
    from hpo.benchmark.simulate import Budget
    from hpo.benchmark.trace import Trace


class Searches:
    """The cells of a benchmark as runs that every other verb can open."""

    def __init__(
        self,
        args: argparse.Namespace,
        folder: Folder,
        path: pathlib.Path,
        study: Study,
        budget: Budget,
    ) -> None:
        self._args, self._folder, self._path = args, folder, path
        self._study, self._budget = study, budget
        self._numbers = {json.dumps(cell): n for n, cell in enumerate(folder.asked["cells"])}

    def run_cell(self, cell: Cell) -> tuple[Trace, str]:
        """Searches, or attaches to the search of an earlier call, and reads its ledger."""
        number = self._numbers[json.dumps(dataclasses.asdict(cell))]
        run_id = f"{self._folder.id}-c{number:03d}"
        status = self._search(self._words(cell), run_id)
        if status not in (0, 1):
            words = f"run {run_id} left with status {status}: {last_words(self._folder.log)}"
            raise TuneFleetError(words)
        return trace_of_run(open_run(self._args.runs, run_id)), run_id

    def _words(self, cell: Cell) -> list[str]:
        from hpo.benchmark.folder import write_json
        from hpo.benchmark.matrix import shared_start

        args, budget = self._args, self._budget
        words = [str(self._path), "--engine", cell.engine, "--sampler", cell.sampler]
        words += ["--pruner", cell.pruner, "--seed", str(cell.seed)]
        words += ["--workers", str(cell.workers)]
        if cell.sampler == "grid":
            words += ["--set", "grid_order=random"]
        kind = SAMPLERS.load(cell.sampler)
        if budget.shared and kind.takes_given:
            points = self._folder.path / f"start-{cell.seed}.json"
            write_json(points, shared_start(self._study, cell.seed, budget.shared))
            words += ["--start", str(points)]
        # Where only time is short no number of trials ends it.
        trials = budget.trials or 10**6
        hours = budget.max_hours(cell.workers)
        words += ["--trials", str(trials), *([] if hours is None else ["--max-hours", str(hours)])]
        return [*words, *how_to_train(args)]

    def retrain(self, points: pathlib.Path, count: int, number: int) -> str:
        """Trains the ``count`` points in a file with one fresh seed; answers the run's id."""
        run_id = f"{self._folder.id}-f{number:02d}"
        seed = seed_of(self._folder.asked["seed"], f"fresh {number}")
        words = [str(self._path), "--start", str(points), "--trials", str(count)]
        words += ["--seed", str(seed), "--workers", str(self._folder.asked["cells"][0]["workers"])]
        status = self._search([*words, *how_to_train(self._args)], run_id)
        if status not in (0, 1):
            raise RunError(f"run {run_id} left with status {status}: see {self._folder.log}")
        return run_id

    def _search(self, words: Sequence[str], run_id: str) -> int:
        """Searches here, or where ``--on`` says; the run is among those here afterwards."""
        words = [*words, "--id", run_id]
        if self._args.on:
            return search_there(self._args, words, self._args.runs / run_id, self._folder.log)
        return search(words, self._args.runs, self._folder.log)


def trace_of_run(run: Run) -> Trace:
    """What a run's ledger says of when it did what."""
    from hpo.benchmark.trace import trace_of
    from hpo.status import early_end_of

    with contextlib.closing(run.reader()) as reader:
        records = [attempt.record for attempt in reader.attempts(history=False)]
        workers, sessions = reader.workers(), reader.sessions()
    began = min((s["started_at"] for s in sessions), default=run.created_at)
    return trace_of(records, workers, began, None, early_end_of(run))
