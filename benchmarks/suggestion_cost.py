"""How long does a sampler think, by how many trials have ended, with others running?

The finished trials are random points that the sampler is told of as another run's. The CPU
seconds are those of this process and its children: KerasTuner's oracles live in one.
"""

from __future__ import annotations

import argparse
import pathlib
import random
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import psutil
from _ask_and_tell import Search
from _functions import FUNCTIONS

from hpo.registry import SAMPLERS
from hpo.samplers.base import Outcome
from hpo.trial import TrialState


def cpu_s() -> float:
    """What this process and its living children have used."""
    children = psutil.Process().children(recursive=True)
    return time.process_time() + sum(sum(each.cpu_times()[:2]) for each in children)


def cost(name: str, function: str, finished: int, running: int, asks: int) -> tuple[float, float]:
    """Median seconds of a suggestion: by the wall, and of CPU."""
    task, rng = FUNCTIONS[function], random.Random(finished)
    search = Search(name, task.space, 0, running + 1, task.regret)
    points = [task.space.sample(rng) for _ in range(finished)]
    done = TrialState.COMPLETED
    search.sampler.learn([Outcome(point, done, task.regret(point)) for point in points])
    for _ in range(running):
        search.ask()
    spent = []
    for _ in range(asks):
        wall, cpu = time.perf_counter(), cpu_s()
        search.ask()
        spent.append((time.perf_counter() - wall, cpu_s() - cpu))
        search.end()
    return statistics.median(s[0] for s in spent), statistics.median(s[1] for s in spent)


def main() -> None:
    """Prints a row for each sampler and number of finished trials."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samplers", default="random,qmc,cmaes,tpe")
    parser.add_argument("--function", default="network", choices=list(FUNCTIONS))
    parser.add_argument("--finished", default="100,1000,5000")
    parser.add_argument("--running", type=int, default=8)
    parser.add_argument("--asks", type=int, default=10)
    args = parser.parse_args()
    print(f"{args.function}, {args.running} running; median of {args.asks} suggestions, in ms")
    print(f"{'sampler':12} {'finished':>9} {'wall':>9} {'CPU':>9}")
    for name in args.samplers.split(","):
        SAMPLERS.load(name).check_installed()
        for finished in map(int, args.finished.split(",")):
            wall, cpu = cost(name, args.function, finished, args.running, args.asks)
            print(f"{name:12} {finished:9} {wall * 1e3:9.1f} {cpu * 1e3:9.1f}", flush=True)


if __name__ == "__main__":
    main()
