"""What a finished trial costs the chief, and whether that grows with the number of trials.

Drives the real coordinator and the real ledger with trials that do nothing: asked for, two
reports, ended. Every answer waits until it is durable, as a worker's call does. Run it as

    python benchmarks/ledger_growth.py [--trials 10000] [--folder DIR]

and compare the rows: a cost that grows from one to the next grows with the search. Bytes are
those that the process gave to the system (Linux); the ledger is deleted at the end.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from hpo import ledger
from hpo.coordinator import Coordinator
from hpo.ledger import LedgerReader, LedgerWriter
from hpo.parameter import Kind, Parameter
from hpo.protocol import AskSampler, Grant, Rules, TellSampler, WorkerInfo
from hpo.samplers.random import RandomSampler
from hpo.space import SearchSpace
from hpo.study import Form, Study
from hpo.trial import Direction, Report

WORKER = WorkerInfo("worker", "1", "host", 1, "cpu")
SPACE = SearchSpace(
    [Parameter(f"x{i}", Kind.FLOAT, low=1e-4, high=1.0, sampling="log") for i in range(8)]
)
STUDY = Study("nothing", Form.FUNCTION, "loss", Direction.MIN, 2, 1, SPACE, {}, "0" * 64)
RULES = Rules(
    wanted=10**9,
    objective=STUDY.objective,
    direction=STUDY.direction,
    seed=0,
    engine="none",
    sampler="random",
    study_digest=STUDY.digest,
)
# Trials over which the cost at one mark is averaged.
WINDOW = 100


class Clock:
    """The machine's own clocks."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()


@dataclasses.dataclass(frozen=True)
class Spent:
    """What the process has used since its start."""

    wall_s: float
    cpu_s: float
    written: int

    @classmethod
    def now(cls) -> Spent:
        counters = pathlib.Path("/proc/self/io").read_text().split()
        written = int(counters[counters.index("wchar:") + 1])
        return cls(time.perf_counter(), time.process_time(), written)


class Chief:
    """A chief without a network: coordinator, sampler and ledger."""

    def __init__(self, folder: pathlib.Path) -> None:
        ledger.create(folder, {})
        self._writer = LedgerWriter(folder)
        self._sampler = RandomSampler(STUDY, RULES.seed)
        self._coordinator = Coordinator(RULES, Clock())
        self._coordinator.joined(WORKER)
        self._settle()

    def trial(self) -> None:
        """One trial from its grant to its end."""
        coordinator = self._coordinator
        while not isinstance(
            answer := coordinator.asked(WORKER.worker_id, WORKER.incarnation), Grant
        ):
            self._settle()
        self._settle()
        trial_id, fence = answer.attempt.record.trial_id, answer.attempt.fence
        for step in (1, 2):
            coordinator.reported(trial_id, fence, Report(step, {"loss": 1 / step}))
            self._settle()
        coordinator.ended(trial_id, fence, completed=True)
        self._settle()

    def close(self) -> None:
        self._writer.close()

    def _settle(self) -> None:
        while self._coordinator.outbox:
            effects, self._coordinator.outbox = self._coordinator.outbox, []
            self._writer.commit(effects, time.time()).result()
            for effect in effects:
                if isinstance(effect, AskSampler):
                    answer = self._sampler.ask(effect.trial_id, self._coordinator.pending)
                    implementation = self._sampler.implementation
                    self._coordinator.proposed(effect.trial_id, answer, implementation)
                elif isinstance(effect, TellSampler):
                    self._sampler.told(effect.record)


def measure(folder: pathlib.Path, trials: int) -> None:
    """Runs ``trials`` of them and prints a row at each mark."""
    chief = Chief(folder)
    marks = {mark for mark in (100, 1_000, 10_000, 100_000) if mark <= trials}
    print(f"{'trials':>8} {'CPU ms':>9} {'wall ms':>9} {'bytes':>9}   a trial, over {WINDOW}")
    before = Spent.now()
    for number in range(1, trials + 1):
        if number + WINDOW - 1 in marks:
            before = Spent.now()
        chief.trial()
        if number in marks:
            after = Spent.now()
            cpu, wall = after.cpu_s - before.cpu_s, after.wall_s - before.wall_s
            written = (after.written - before.written) / WINDOW
            row = f"{1000 * cpu / WINDOW:9.2f} {1000 * wall / WINDOW:9.2f} {written:9.0f}"
            print(f"{number:8,} {row}", flush=True)
    chief.close()
    _print_reading(folder)


def _print_reading(folder: pathlib.Path) -> None:
    """What a restart costs: reading all of it."""
    size = (folder / ledger.FILE).stat().st_size
    start = time.process_time()
    reader = LedgerReader(folder)
    found = sum(1 for _ in reader.attempts())
    reader.close()
    print(f"{size / 1e6:.1f} MB; {found:,} trials read in {time.process_time() - start:.2f} CPU s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--folder", type=pathlib.Path, help="where the ledger lies meanwhile")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        measure(pathlib.Path(name), arguments.trials)


if __name__ == "__main__":
    main()
