"""Does a sampler of ours find as much as the same library does that is used by hand?

Functions with known optima, every sampler with the same seeds. A row gives the median regret
of the best point, and the mean difference of its decimal logarithm, ours minus by hand, with
a bootstrap interval of 95 %. Below zero ours is better.
"""

from __future__ import annotations

import argparse
import math
import pathlib
import random
import statistics
import sys
from collections.abc import Sequence
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from _ask_and_tell import Search
from _functions import FUNCTIONS, Function

from hpo.registry import SAMPLERS

# By how many decades of regret ours may be worse before it counts: a factor of two.
MARGIN = 0.3
_BY_HAND = {
    "random": "RandomSampler",
    "tpe": "TPESampler",
    "gp": "GPSampler",
    "cmaes": "CmaEsSampler",
    "qmc": "QMCSampler",
}


def by_hand(name: str, function: Function, seed: int, running: int, trials: int) -> list[float]:
    """The values that Optuna's sampler finds with its defaults and a study of its own."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    options: dict[str, Any] = {"scramble": True} if name == "qmc" else {}
    sampler = getattr(optuna.samplers, _BY_HAND[name])(seed=seed, **options)
    study = optuna.create_study(sampler=sampler)
    pending: list[Any] = []
    values: list[float] = []

    def end() -> None:
        trial, params = pending.pop(0)
        values.append(function.regret(params))
        study.tell(trial, values[-1])

    for _ in range(trials):
        trial = study.ask()
        pending.append((trial, function.by_hand(trial)))
        if len(pending) == running:
            end()
    while pending:
        end()
    return values


def interval(differences: Sequence[float]) -> tuple[float, float]:
    """The bootstrap interval of 95 % of the mean."""
    rng = random.Random(0)
    size = len(differences)
    means = sorted(statistics.fmean(rng.choices(differences, k=size)) for _ in range(4000))
    return means[100], means[-101]


def row(name: str, function: str, running: int, seeds: int, trials: int) -> str:
    """What one sampler does on one function."""
    task = FUNCTIONS[function]
    ours = [
        min(Search(name, task.space, seed, running, task.regret).run(trials))
        for seed in range(seeds)
    ]
    head = f"{function:10} {running:2} pending  {name:12} {statistics.median(ours):10.4g}"
    if name not in _BY_HAND:
        return head
    theirs = [min(by_hand(name, task, seed, running, trials)) for seed in range(seeds)]
    logs = [
        math.log10(max(a, 1e-12)) - math.log10(max(b, 1e-12))
        for a, b in zip(ours, theirs, strict=True)
    ]
    low, high = interval(logs)
    verdict = "no worse" if high < MARGIN else "worse" if low > MARGIN else "undecided"
    mean = statistics.fmean(logs)
    return (
        f"{head} {statistics.median(theirs):10.4g}  {mean:+.2f} [{low:+.2f}, {high:+.2f}] {verdict}"
    )


def main() -> None:
    """Prints a row for each sampler, function and number of pending trials."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samplers", default="random,qmc,cmaes,tpe")
    parser.add_argument("--functions", default=",".join(FUNCTIONS))
    parser.add_argument("--pending", default="1,8")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--trials", type=int, default=50)
    args = parser.parse_args()
    names = args.samplers.split(",")
    for name in names:
        SAMPLERS.load(name).check_installed()
    print(f"{args.trials} trials, seeds 0 to {args.seeds - 1}; margin {MARGIN} decades")
    print(f"{'':10} {'':10}  {'sampler':12} {'ours':>10} {'by hand':>10}  difference in decades")
    for function in args.functions.split(","):
        for running in map(int, args.pending.split(",")):
            for name in names:
                print(row(name, function, running, args.seeds, args.trials), flush=True)


if __name__ == "__main__":
    main()
