"""How long does it take to replay a search of the size of a cluster, and what does it show?

A table of a made-up function, ten steps of 30 s each; a row for each sampler with what the
replay took here and what the simulated cluster did meanwhile.
"""

from __future__ import annotations

import argparse
import pathlib
import random
import sys
import time

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from _functions import FUNCTIONS, Function

from hpo.benchmark.matrix import Cell
from hpo.benchmark.nodes import Draw, Nodes
from hpo.benchmark.simulate import Budget, simulate
from hpo.benchmark.table import Table
from hpo.registry import owner_of
from hpo.trial import Direction

STEPS, STEP_S = 10, 30.0


def main() -> None:
    """Replays each sampler and prints its row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samplers", default="random,tpe", metavar="A,B")
    parser.add_argument("--function", default="network", choices=FUNCTIONS)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--trials", type=int, default=5000)
    args = parser.parse_args()
    table = made(FUNCTIONS[args.function], args.trials + args.trials // 5)
    nodes = Nodes(
        start_s=Draw.parse("lognormal:60,0.5"),
        speed=Draw.parse("lognormal:1,0.15"),
        preempted_after_s=Draw.parse("exp:7200"),
    )
    print(f"{args.trials} trials on {args.workers} workers; {nodes.described()}")
    print("sampler        replay s  CPU s  simulated s  training  thinking  ms a point  regret")
    for name in args.samplers.split(","):
        cell = Cell(owner_of(name) or "keras-tuner", name, "none", args.workers, 1)
        began, cpu = time.perf_counter(), time.process_time()
        trace = simulate(table, cell, Budget(args.trials), nodes)
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
        thought = trace.suggesting_s or 0.0
        print(
            f"{name:<14} {took:8.1f} {cpu:6.1f} {trace.makespan_s:12.0f} "
            f"{trace.busy_s / trace.present_s:9.1%} {thought / trace.makespan_s:9.1%} "
            f"{1000 * thought / len(trace.ends):11.2f} {trace.best(Direction.MIN)[-1]:7.4f}",
            flush=True,
        )


def made(function: Function, rows: int) -> Table:
    """A table of random points of ``function``, whose curves fall to its regret."""
    rng = random.Random(1)
    points = [function.space.sample(rng) for _ in range(rows)]
    final = np.array([function.regret(point) for point in points])
    falling = 2.0 ** -np.arange(1.0, STEPS + 1)
    loss = final[:, None, None] + (falling - falling[-1])
    noise = np.random.default_rng(1)
    pace = noise.lognormal(0.0, 0.3, size=(rows, 1, 1))
    return Table(
        name="made-up",
        space=function.space,
        objective="loss",
        direction=Direction.MIN,
        metric_names=("loss",),
        configurations=tuple(points),
        metrics=loss[..., None],
        lengths=np.full((rows, 1), STEPS),
        diverged=np.zeros((rows, 1), dtype=bool),
        seconds=STEP_S * pace * np.ones((rows, 1, STEPS)),
    )


if __name__ == "__main__":
    main()
