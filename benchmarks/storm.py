"""A search whose processes are killed (kill -9) all the time: does anything go missing?

    python benchmarks/storm.py [--seeds 10] [--samplers random,grid,kt-random]
    python benchmarks/storm.py --study cnn-dropout --trials 20 --train-examples 6000 \\
        --epochs 3 --checkpoint-every 1 --worker-every 8 --chief-every 40 --workers 2

`launch.py run` brings the killed ones back; it is not killed itself. Every worker's agent
takes its trial process along. Afterwards the run is read with `launch.py trials --json`:

    completed  trials that completed; all that were wanted should have
    again      completed trials of which there is a later attempt, or a second completed one
    twice      points that two trials have, where the sampler promises different ones
    lost       results that a worker saw acknowledged (its log says that the trial ended) and
               that the ledger does not have as completed
    failed     trials that failed: one is lost at most five times, which a storm can bring about
    left       processes of the run that were still there at its end

A trial of half a second among four workers, one of which dies every two seconds, is lost
once in sixteen times, five times in a row once in a million. Exit status 1 if a run was not
as it should be; its folder is kept with `--runs DIR`.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import os
import pathlib
import random
import re
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from _fleet import ROOT

from hpo.errors import TuneFleetError
from hpo.run import Run
from hpo.status import status_of
from tests.support.cli_runs import LiveRun, points, processes_of

STUDY = str(ROOT / "benchmarks" / "storm_study.py")
SAMPLERS = ("random", "grid", "kt-random", "kt-grid", "kt-bayesian", "kt-hyperband")
# Those that propose no point twice; a promotion of Hyperband's is a trial of its own.
NEVER_TWICE = ("random", "grid", "bayesian", "tpe", "gp", "cmaes", "qmc", "kt-random", "kt-grid")
# Hyperband makes 70 trials of so many, which must take less each: a trial that outlasts most
# workers ends as failed.
HYPERBAND_EPOCHS, HYPERBAND_STEP_S = 27, 0.04
COLUMNS = ("completed", "again", "twice", "lost", "failed", "left")

_STARTED = re.compile(r"INFO tunefleet\.worker: trial (\S+), attempt (\d+): ")
_COMPLETED = re.compile(r"INFO tunefleet\.worker: trial (\S+) ended: completed$")


class Killer:
    """Kills one of a run's processes after another until it is told to stop. Used as a context."""

    def __init__(
        self, live: LiveRun, every_s: float, seed: int, victims: Callable[[Any], Iterable[int]]
    ) -> None:
        self.kills = 0
        self._live = live
        self._every_s = every_s
        self._rng = random.Random(seed)
        self._victims = victims
        self._calm = threading.Event()
        self._thread = threading.Thread(target=self._rage, daemon=True)

    def __enter__(self) -> Killer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._calm.set()
        self._thread.join()

    def _rage(self) -> None:
        while not self._calm.wait(self._every_s * self._rng.uniform(0.5, 1.5)):
            pid = self._choose()
            if pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    self.kills += 1

    def _choose(self) -> int | None:
        """A process that is there and of this run: numbers of processes are used again."""
        try:
            status = status_of(Run(self._live.runs / self._live.id))
        except TuneFleetError:
            # The run is not there yet.
            return None
        own = set(self._live.processes())
        alive = sorted(own.intersection(self._victims(status)))
        return self._rng.choice(alive) if alive else None


def _chief(status: dict[str, Any]) -> list[int]:
    return [pid for pid in (status["chief"]["pid"],) if pid]


def _workers(status: dict[str, Any]) -> list[int]:
    return [worker["pid"] for worker in status["workers"]]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What was found after a run."""

    wanted: int
    attempts: int
    exit_status: int | None
    found: dict[str, int]

    @property
    def sound(self) -> bool:
        """Whether the run is as it would be without a single kill."""
        wrong = {**self.found, "completed": self.found["completed"] - self.wanted}
        return self.exit_status == 0 and not any(wrong.values())


def ride(options: argparse.Namespace, runs: pathlib.Path, sampler: str, seed: int) -> bool:
    """One run through the storm, as a row; whether it was sound."""
    pace = {"STORM_STEP_S": str(HYPERBAND_STEP_S)} if sampler == "kt-hyperband" else {}
    live = LiveRun(runs, f"{sampler}-{seed}", *_command(options, sampler, seed), env=pace)
    began = time.monotonic()
    try:
        with (
            Killer(live, options.worker_every, seed, _workers) as workers,
            Killer(live, options.chief_every, seed, _chief) as chiefs,
        ):
            try:
                exit_status, _, errors = live.wait(options.patience)
            except subprocess.TimeoutExpired:
                exit_status, errors = None, f"not done after {options.patience:.0f} s"
        seconds = time.monotonic() - began
        outcome = examine(live, exit_status, sampler)
    finally:
        live.end()
    cells = " ".join(f"{outcome.found[name]:>9}" for name in COLUMNS)
    left = "-" if outcome.exit_status is None else outcome.exit_status
    print(
        f"{sampler:>13} {seed:4} {outcome.wanted:6} {outcome.attempts:8} {workers.kills:7} "
        f"{chiefs.kills:6} {seconds:6.0f} {cells} {left:>4}",
        flush=True,
    )
    if not outcome.sound:
        print(f"  {errors.strip()}", flush=True)
    return outcome.sound


def _command(options: argparse.Namespace, sampler: str, seed: int) -> list[str]:
    epochs = HYPERBAND_EPOCHS if sampler == "kt-hyperband" else 0
    asked = {
        "id": f"{sampler}-{seed}",
        "sampler": sampler,
        "seed": seed,
        "trials": options.trials,
        "workers": options.workers,
        "epochs": max(options.epochs, epochs),
        "train-examples": options.train_examples,
        "checkpoint-every": options.checkpoint_every,
    }
    given = [(f"--{name}", str(value)) for name, value in asked.items() if value is not None]
    return ["run", options.study, *(text for pair in given for text in pair)]


def examine(live: LiveRun, exit_status: int | None, sampler: str) -> Outcome:
    """Holds what the run left against what it promised."""
    rows = live.read("trials")
    wanted = live.read("status")["trials"]["wanted"]
    states = collections.defaultdict(list)
    for row in rows:
        states[row["trial_id"]].append(row["state"])
    completed = {(r["trial_id"], r["attempt"]) for r in rows if r["state"] == "COMPLETED"}
    tried = [point for _, point in points(rows)]
    found = {
        "completed": len({trial_id for trial_id, _ in completed}),
        "again": sum("COMPLETED" in earlier[:-1] for earlier in states.values()),
        "twice": len(tried) - len(set(tried)) if sampler in NEVER_TWICE else 0,
        "lost": len(acknowledged(live.runs / live.id / "logs") - completed),
        "failed": sum(earlier[-1] == "FAILED" for earlier in states.values()),
        "left": len(processes_of(str(live.runs))),
    }
    return Outcome(wanted, len(rows), exit_status, found)


def acknowledged(logs: pathlib.Path) -> set[tuple[str, int]]:
    """The attempts, as (trial, attempt), of which a worker wrote that they ended completed.

    It writes that once the chief has answered EndTrial.
    """
    found = set()
    for log in logs.glob("worker-*.log"):
        attempts: dict[str, int] = {}
        for line in log.read_text(errors="replace").splitlines():
            if started := _STARTED.search(line):
                attempts[started[1]] = int(started[2])
            elif ended := _COMPLETED.search(line):
                found.add((ended[1], attempts[ended[1]]))
    return found


def main() -> int:
    """Prints a row a run; 1 if any was not as it should be."""
    options = _options()
    head = " ".join(f"{name:>9}" for name in COLUMNS)
    print(f"{'sampler':>13} seed wanted attempts workers chiefs      s {head} exit")
    print(f"{'':13} {'':4} {'':6} {'':8} {'killed':>7} {'killed':>6}")
    sound = True
    for seed in range(options.seed, options.seed + options.seeds):
        for sampler in options.samplers.split(","):
            with contextlib.ExitStack() as stack:
                folder = options.runs or stack.enter_context(tempfile.TemporaryDirectory())
                sound &= ride(options, pathlib.Path(folder).resolve(), sampler, seed)
    return 0 if sound else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--study", default=STUDY)
    parser.add_argument("--samplers", default=",".join(SAMPLERS))
    parser.add_argument("--seeds", type=int, default=1, help="how many")
    parser.add_argument("--seed", type=int, default=1, help="the first of them")
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--train-examples", type=int)
    parser.add_argument("--checkpoint-every")
    parser.add_argument("--worker-every", type=float, default=2.0, help="seconds, on average")
    parser.add_argument("--chief-every", type=float, default=10.0, help="seconds, on average")
    parser.add_argument("--patience", type=float, default=1800.0, help="seconds a run may take")
    parser.add_argument("--runs", type=pathlib.Path, help="where to keep the runs")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
