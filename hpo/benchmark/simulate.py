"""One cell of a benchmark, replayed from a table."""

from __future__ import annotations

import dataclasses

from hpo.benchmark.matrix import Cell, shared_start
from hpo.benchmark.nodes import Nodes
from hpo.benchmark.replay import Replay
from hpo.benchmark.table import Table
from hpo.benchmark.trace import Trace
from hpo.protocol import Rules
from hpo.pruners import Pruner
from hpo.registry import PRUNERS, SAMPLERS
from hpo.samplers.base import Sampler
from hpo.samplers.start import StartingPoints


@dataclasses.dataclass(frozen=True)
class Budget:
    """What each search of a benchmark may spend: points, or node-seconds, or what ends first.

    The first ``shared`` points are the same for every sampler that takes given ones.
    """

    trials: int | None = None
    node_seconds: float | None = None
    shared: int = 0

    def max_hours(self, workers: int) -> float | None:
        """The limit of a search on so many nodes that all work."""
        return None if self.node_seconds is None else self.node_seconds / workers / 3600


def simulate(table: Table, cell: Cell, budget: Budget, nodes: Nodes) -> Trace:
    """Replays the search of ``cell``; whatever its sampler imports is imported before."""
    study = table.study()
    kind: type[Sampler] = SAMPLERS.load(cell.sampler)
    # What it takes to import is no suggestion's cost: a real chief does it while workers start.
    kind(study, cell.seed).ask("warm-up", [])
    sampler = kind(study, cell.seed)
    # Part of a grid in its order is no fair part of it.
    sampler.shuffle()
    if budget.shared and kind.takes_given:
        sampler = StartingPoints(sampler, shared_start(study, cell.seed, budget.shared))
    pruner: Pruner = PRUNERS.load(cell.pruner)(study.direction, study.epochs, cell.seed)
    trials = budget.trials
    if trials is None and budget.node_seconds is not None:
        # Only time is short.
        trials = table.rows
    rules = Rules(
        wanted=kind.wanted(study, trials),
        objective=study.objective,
        direction=study.direction,
        seed=cell.seed,
        engine=cell.engine,
        sampler=cell.sampler,
        study_digest=study.digest,
        lease_s=nodes.lease_s,
        max_hours=budget.max_hours(cell.workers),
        ahead=kind.ignores_results,
    )
    return Replay(table, sampler, pruner, rules, cell.workers, nodes).run()
