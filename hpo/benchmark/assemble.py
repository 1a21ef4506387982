"""The report of a benchmark from what lies in its folder, finished or not."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from hpo.benchmark import report
from hpo.benchmark.analysis import Result, analyse, scale_of_results
from hpo.benchmark.carry_out import DONE, Outcome
from hpo.benchmark.document import Document
from hpo.benchmark.folder import Folder
from hpo.benchmark.matrix import Cell, Pair
from hpo.benchmark.regret import scale_of_table
from hpo.benchmark.table import Table
from hpo.benchmark.table_reading import digest_of_table, read_table
from hpo.benchmark.winner import Winner, bias_in_table, judged, leading
from hpo.errors import DataError, RunError
from hpo.study import Study

WINNER = "winner.json"
REPLAY, MATRIX = "replay", "matrix"


def outcomes_of(folder: Folder) -> list[Outcome]:
    """What came of the cells that are done so far."""
    kept = (folder.result(Cell(**cell).name) for cell in folder.asked["cells"])
    return [Outcome.from_json(row) for row in kept if row is not None]


def results_of(outcomes: Sequence[Outcome], study: Study, table: Table | None) -> list[Result]:
    """Those that ended as asked, with the scale of their regret."""
    traces = {o.cell: o.trace for o in outcomes if o.state == DONE and o.trace is not None}
    if table is not None:
        return [Result(c, trace, scale_of_table(table, c.seed)) for c, trace in traces.items()]
    scale = scale_of_results(traces, study.direction)
    return [Result(cell, trace, scale) for cell, trace in traces.items()]


def assemble(folder: Folder) -> Document:
    """The report; RunError where no cell has ended."""
    asked = folder.asked
    if asked["kind"] not in (REPLAY, MATRIX):
        raise RunError(f"{folder.id} is a {asked['kind']}, of which there is no report")
    study = Study.from_json(asked["study"])
    table = _table_of(asked) if asked["kind"] == REPLAY else None
    outcomes = outcomes_of(folder)
    results = results_of(outcomes, study, table)
    if not results:
        raise RunError(f"no search of {folder.id} has come to a value: see {folder.log}")
    axis = "trials" if asked["budget"]["node_seconds"] is None else "node_s"
    failed = [outcome for outcome in outcomes if outcome.state != DONE]
    return report.of_benchmark(
        _ground(folder, study, table, len(outcomes)),
        analyse(results, axis),
        results,
        failed,
        [Pair(**pair) for pair in asked["unsupported"]],
        _winner(folder, results),
        bias_in_table(table, results) if table is not None else None,
    )


def _table_of(asked: Mapping[str, Any]) -> Table:
    """The table that was replayed; DataError where it is another by now."""
    folder = pathlib.Path(asked["table"])
    table = read_table(folder)
    if digest_of_table(folder) != asked["table_digest"]:
        raise DataError(f"{folder} is not the table that was replayed: it has changed since")
    return table


def _winner(folder: Folder, results: Sequence[Result]) -> Winner | None:
    path = folder.path / WINNER
    if not path.is_file():
        return None
    kept = json.loads(path.read_text())
    return judged(leading(results, kept["top"]), kept["fresh"], results[0].scale.direction)


def _ground(folder: Folder, study: Study, table: Table | None, done: int) -> report.Ground:
    asked = folder.asked
    stated = [("benchmark", folder.id), ("searches that ended", f"{done} of {len(asked['cells'])}")]
    if table is not None:
        of = f"{table.rows} configurations x {table.seeds} seeds x {table.steps} steps"
        stated += [("table", f"{pathlib.Path(asked['table']).name}: {of}")]
        stated += [(f"the table's {name}", _said(value)) for name, value in table.source.items()]
        stated += [("nodes", asked["nodes"])]
    else:
        stated += [("study", study.name), ("epochs at most", str(study.epochs))]
        stated += [("training examples", str(asked["train_examples"] or "all"))]
    stated += [("objective", f"{study.objective}, {study.direction.value}imal is best")]
    stated += [(name, said) for name, said in _budget(asked["budget"]).items()]
    seeds = sorted({cell["seed"] for cell in asked["cells"]})
    stated += [("seeds", f"{len(seeds)}, drawn from {asked['seed']}")]
    return report.Ground(
        title=f"Benchmark of {study.name}" + (", replayed" if table is not None else ""),
        space=study.space,
        objective=study.objective,
        direction=study.direction,
        stated=stated,
        notes=_notes(table is not None, asked["budget"]["shared"]),
    )


def _budget(budget: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    if budget["trials"] is not None:
        found["trials of each search"] = str(budget["trials"])
    if budget["node_seconds"] is not None:
        found["node-seconds of each search"] = f"{budget['node_seconds']:g}"
    return found


def _notes(is_replay: bool, shared: int) -> list[str]:
    scale = (
        "A regret of 0 is the best value in the table and 1 the median of its configurations, on "
        "the curves that the seed gives them."
        if is_replay
        else "A regret of 0 is the best value that any search here found, and 1 the median of what "
        "random search tried: where the true best is better, every regret is understated."
    )
    pairs = "Searches of one seed are pairs: they meet the same curves"
    if shared:
        pairs += f", and their first {shared} points are the same where a sampler takes given ones"
    return [
        f"{scale} Less is better; logarithms are decimal, and a regret below 0.001 counts as that.",
        f"{pairs}. Samplers have their libraries' defaults; sampler grid goes through its points "
        "in a random order. Intervals are 95 %, by bootstrap over seeds.",
        "A difference is claimed only where Wilcoxon's test, corrected by Holm, and the interval "
        "of the mean difference agree.",
    ]


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {part}" for name, part in value.items())
    return str(value)
