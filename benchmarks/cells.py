"""The same search by several engines, samplers, pruners and seeds: a row for each.

    python benchmarks/cells.py cnn-dropout --engines keras-tuner,ray,optuna \\
        --samplers random,grid,bayesian --seeds 7,11 -- --trials 16 --epochs 3

What stands behind ``--`` goes to `launch.py run` as it is. Each cell is an ordinary run, one
after another, under ``--runs``; one that is there and done is not run again. The interval is
Wilson's of 95 % for so many test examples, which says nothing of other seeds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import pathlib
import subprocess
import sys
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent


def launch(*words: str) -> str:
    """What `launch.py` prints; its own line on standard error where it fails."""
    command = [sys.executable, str(ROOT / "launch.py"), *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
    if done.returncode:
        raise SystemExit(f"`{' '.join(words)}` left with {done.returncode}")
    return done.stdout


def wilson(share: float, of: int, z: float = 1.96) -> tuple[float, float]:
    """The interval of 95 % for a share of so many."""
    middle = share + z * z / (2 * of)
    spread = z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return (middle - spread) / (1 + z * z / of), (middle + spread) / (1 + z * z / of)


def row(run_id: str, runs: str, tested: int) -> str:
    """What came of a run."""
    status: dict[str, Any] = json.loads(launch("status", run_id, "--json", "--runs", runs))
    best: dict[str, Any] = json.loads(launch("best", run_id, "--json", "--runs", runs))
    lines = launch("trials", run_id, "--json", "--runs", runs).splitlines()
    attempts: list[dict[str, Any]] = [json.loads(line) for line in lines]
    epochs = sum(len(attempt["history"]) for attempt in attempts)
    used = {attempt["sampler_impl"].split(" (")[0] for attempt in attempts}
    accuracy = best["test"]["accuracy"]
    low, high = wilson(accuracy, tested)
    counts = status["trials"]
    return (
        f"{counts['completed']} completed, {counts['pruned']} pruned | {epochs} | "
        f"{best['value']:.4f} | {accuracy:.4f} [{low:.4f}, {high:.4f}] | "
        f"{status['elapsed_s']:.0f} s | {', '.join(sorted(used))}"
    )


def main() -> None:
    """Prints a row for each cell, as soon as it has ended."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study")
    parser.add_argument("--engines", default="keras-tuner")
    parser.add_argument("--samplers", default="random")
    parser.add_argument("--pruners", default="none")
    parser.add_argument("--seeds", default="7")
    parser.add_argument("--runs", default="runs")
    parser.add_argument("--tested", type=int, default=10_000, help="examples in the test set")
    words = sys.argv[1:]
    own = words.index("--") if "--" in words else len(words)
    args, rest = parser.parse_args(words[:own]), words[own + 1 :]
    print(
        "| engine | sampler | pruner | seed | trials | epochs | best | test accuracy | took | by |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    axes = [getattr(args, name).split(",") for name in ("engines", "samplers", "pruners", "seeds")]
    for engine, sampler, pruner, seed in itertools.product(*axes):
        run_id = f"{engine}-{sampler}-{pruner}-{seed}".replace(":", "-")
        cell = ["--engine", engine, "--sampler", sampler, "--pruner", pruner, "--seed", seed]
        launch("run", args.study, *cell, "--id", run_id, "--runs", args.runs, *rest)
        cells = f"`{engine}` | `{sampler}` | {pruner} | {seed}"
        print(f"| {cells} | {row(run_id, args.runs, args.tested)} |", flush=True)


if __name__ == "__main__":
    main()
