"""Searches of which it is known which is better, and by how much."""

from __future__ import annotations

import random
from collections.abc import Sequence

from hpo.benchmark.analysis import Result
from hpo.benchmark.matrix import Cell
from hpo.benchmark.nodes import Nodes
from hpo.benchmark.regret import scale_of_table
from hpo.benchmark.replay import Replay
from hpo.benchmark.table import Table
from hpo.protocol import Rules
from hpo.pruners import NoPruner
from hpo.samplers.base import Answer, Proposal, Sampler
from hpo.study import Study
from hpo.trial import Params, TrialRecord
from tests.support.surrogate_tables import SPACE


class Guided(Sampler):
    """Draws ``draws`` random points and proposes the one nearest to the bowl's lowest point.

    With one it is random search, of a stream of its own.
    """

    draws = 1

    def ask(self, trial_id: str, pending: Sequence[TrialRecord]) -> Answer:
        rng = random.Random(f"{self.seed}:{self.draws}:{trial_id}:guided")
        points = [self.space.sample(rng) for _ in range(self.draws)]
        return Proposal(min(points, key=_distance))


class Better(Guided):
    """Four for each point: as good as random search with four times the trials."""

    draws = 4


def _distance(point: Params) -> float:
    return sum((p.to_unit(point[p.name]) - 0.6) ** 2 for p in SPACE.parameters[:2])


def searched(
    table: Table, kind: type[Sampler], name: str, seeds: Sequence[int], trials: int = 20
) -> list[Result]:
    """The results of a sampler on ``table`` under the name of a registered one."""
    study: Study = table.study()
    results = []
    for seed in seeds:
        rules = Rules(trials, "loss", study.direction, seed, "keras-tuner", name, study.digest)
        nodes = Nodes(call_s=0.0, suggestion_s=0.0)
        pruner = NoPruner(study.direction, table.steps, seed)
        trace = Replay(table, kind(study, seed), pruner, rules, 4, nodes).run()
        cell = Cell("keras-tuner", name, "none", 4, seed)
        results.append(Result(cell, trace, scale_of_table(table, seed)))
    return results
