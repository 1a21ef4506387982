"""Does the cells of a benchmark one after the other, and goes on where it was killed."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hpo.benchmark.analysis import Result
from hpo.benchmark.folder import Folder
from hpo.benchmark.matrix import Cell
from hpo.benchmark.regret import Scale
from hpo.benchmark.trace import Trace
from hpo.errors import TuneFleetError

DONE, FAILED = "DONE", "FAILED"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a cell: its trace, or why there is none; ``run`` where it was a real one."""

    cell: Cell
    state: str
    trace: Trace | None = None
    error: str = ""
    run: str = ""
    took_s: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """The outcome as JSON; :meth:`from_json` gives an equal one back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Outcome:
        """An outcome from what :meth:`to_json` gave."""
        trace = Trace.from_json(row["trace"]) if row["trace"] else None
        return cls(**{**row, "cell": Cell(**row["cell"]), "trace": trace})


def carry_out(
    folder: Folder,
    cells: Sequence[Cell],
    run_cell: Callable[[Cell], tuple[Trace, str]],
    say: Callable[[str], None],
) -> list[Outcome]:
    """The outcome of every cell; those that are done are not done again, failed ones are.

    ``run_cell`` answers a cell's trace and its run's id (""), or raises TuneFleetError: then
    the cell has failed, and the others go on.
    """
    outcomes = []
    for number, cell in enumerate(cells, start=1):
        kept = folder.result(cell.name)
        if kept is not None and kept["state"] == DONE:
            outcomes.append(Outcome.from_json(kept))
            continue
        began = time.monotonic()
        try:
            trace, run = run_cell(cell)
            outcome = Outcome(cell, DONE, trace, run=run)
            if not any(end.value is not None for end in trace.ends):
                outcome = Outcome(cell, FAILED, trace, "no trial came to a value", run)
        except TuneFleetError as error:
            outcome = Outcome(cell, FAILED, error=str(error))
        outcome = dataclasses.replace(outcome, took_s=round(time.monotonic() - began, 3))
        folder.keep(cell.name, outcome.to_json())
        outcomes.append(outcome)
        say(f"{number}/{len(cells)} {_line(outcome)}")
    return outcomes


def results(
    outcomes: Sequence[Outcome], scale_of: Callable[[Cell], Scale]
) -> tuple[list[Result], list[Outcome]]:
    """Those that statistics can be made of, and those that failed."""
    done = [o for o in outcomes if o.state == DONE and o.trace is not None]
    failed = [outcome for outcome in outcomes if outcome.state != DONE]
    return [Result(o.cell, o.trace, scale_of(o.cell)) for o in done if o.trace], failed


def _line(outcome: Outcome) -> str:
    cell, trace = outcome.cell, outcome.trace
    words = f"{cell.method}, {cell.workers} workers, seed {cell.seed}: {outcome.state}"
    if outcome.state == FAILED:
        return f"{words}: {outcome.error}"
    assert trace is not None
    return f"{words} {len(trace.ends)} trials in {outcome.took_s:.1f} s"
