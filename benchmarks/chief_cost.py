"""What a finished trial costs the chief, and whether that grows: TuneFleet's beside KerasTuner's.

    python benchmarks/chief_cost.py [--marks 100 500 1000 2000 10000] [--stock-to 2000]

Workers without trials make the four calls of KerasTuner's worker for each trial, over real
gRPC, to a chief as a process of its own: CreateTrial, GetTrial, UpdateTrial, EndTrial. At
each mark, which is a number of trials that have finished, the chief's CPU and the bytes that
it gave to files are taken over the next trials (Linux). For TuneFleet a ledger with so many
trials is made beforehand; stock KerasTuner's one chief has to run up to each mark.
"""

from __future__ import annotations

import argparse
import contextlib
import pathlib
import tempfile
import threading
import time

from _fleet import NOOP, ChiefProcess, Spent, make_run, wait_until_calm
from _stock import NoopWorker, Stock

from hpo.coordinator import Coordinator
from hpo.fleet import wire
from hpo.fleet.chief import SystemClock
from hpo.fleet.client import ChiefClient
from hpo.ledger import LedgerWriter
from hpo.protocol import AskSampler, Effect, Grant, WorkerInfo
from hpo.run import Run
from hpo.study import digest_of
from hpo.trial import Report

WORKER = WorkerInfo("filler", "1", "host", 1, "none")
# Trials whose results are made durable together while a ledger is filled.
BATCH = 500


class Filler:
    """Finished trials by the real coordinator and sampler, without a network."""

    def __init__(self, run: Run) -> None:
        self._sampler = run.sampler()
        self._coordinator = Coordinator(run.rules, SystemClock())
        self._coordinator.joined(WORKER)
        self._effects: list[Effect] = []

    def fill(self, folder: pathlib.Path, trials: int) -> None:
        """Writes ``trials`` finished trials into the ledger in ``folder``."""
        with contextlib.closing(LedgerWriter(folder)) as writer:
            for number in range(1, trials + 1):
                self._trial()
                if number % BATCH == 0 or number == trials:
                    writer.commit(self._effects, time.time()).result()
                    self._effects = []
            self._coordinator.left(WORKER.worker_id, WORKER.incarnation)
            self._settle()
            writer.commit(self._effects, time.time()).result()

    def _trial(self) -> None:
        coordinator = self._coordinator
        while not isinstance(
            answer := coordinator.asked(WORKER.worker_id, WORKER.incarnation), Grant
        ):
            self._settle()
        trial_id, fence = answer.attempt.record.trial_id, answer.attempt.fence
        coordinator.reported(trial_id, fence, Report(1, {"loss": 0.5}))
        coordinator.ended(trial_id, fence, completed=True)
        self._settle()

    def _settle(self) -> None:
        while self._coordinator.outbox:
            effects, self._coordinator.outbox = self._coordinator.outbox, []
            self._effects += effects
            for effect in effects:
                if isinstance(effect, AskSampler):
                    answer = self._sampler.ask(effect.trial_id, self._coordinator.pending)
                    self._coordinator.proposed(
                        effect.trial_id, answer, self._sampler.implementation
                    )


def ours(folder: pathlib.Path, mark: int, window: int, workers: int) -> Spent:
    """What a trial costs our chief after ``mark`` trials."""
    run = make_run(folder, f"after-{mark}")
    Filler(run).fill(run.folder, mark)
    with ChiefProcess(run) as chief:
        address, _ = chief.serving()
        # Before anybody joins: a lease may be shorter than what a chief does at its start.
        wait_until_calm(chief.pid)
        fleet = []
        for number in range(workers):
            worker_id = f"worker-{number}"
            ChiefClient(address, run.token, worker_id, "1").join("here", 1, "", digest_of(NOOP))
            sender = [(wire.WORKER, worker_id), (wire.INCARNATION, "1")]
            metadata = [(wire.AUTHORIZATION, wire.bearer(run.token)), *sender]
            fleet.append(NoopWorker(address, worker_id, metadata))
        return per_trial(chief.pid, fleet, window)


def stock(folder: pathlib.Path, marks: list[int], window: int, workers: int) -> dict[int, Spent]:
    """What a trial costs KerasTuner's chief after each of ``marks`` trials."""
    found = {}
    with Stock(folder / "stock") as chief:
        fleet = [chief.worker(f"worker-{number}") for number in range(workers)]
        done = workers
        for mark in sorted(marks):
            per_trial(chief.pid, fleet, mark - done)
            found[mark] = per_trial(chief.pid, fleet, window)
            done = mark + window
            print(f"stock KerasTuner: {done:,} trials done", flush=True)
    return found


def per_trial(pid: int, fleet: list[NoopWorker], trials: int) -> Spent:
    """Runs ``trials`` of them; what the process ``pid`` used for one."""
    shares = [trials // len(fleet) + (n < trials % len(fleet)) for n in range(len(fleet))]

    def work(worker: NoopWorker, share: int) -> None:
        for _ in range(share):
            worker.trial()

    threads = [threading.Thread(target=work, args=pair) for pair in zip(fleet, shares, strict=True)]
    before = Spent.by(pid)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spent = before.until(Spent.by(pid))
    return Spent(spent.wall_s / trials, spent.cpu_s / trials, spent.written // trials)


def print_table(mine: dict[int, Spent], theirs: dict[int, Spent]) -> None:
    """A row for each mark, and the three figures that matter."""

    def cells(spent: Spent | None) -> str:
        if spent is None:
            return f"{'-':>8} {'-':>8} {'-':>10}"
        return f"{1e3 * spent.cpu_s:8.2f} {1e3 * spent.wall_s:8.1f} {spent.written:10,}"

    head = f"{'CPU ms':>8} {'wall ms':>8} {'bytes':>10}"
    print(f"{'':8} | {'TuneFleet, a trial':^28} | {'stock KerasTuner, a trial':^28}")
    print(f"{'finished':>8} | {head} | {head}")
    for mark in sorted({*mine, *theirs}):
        print(f"{mark:8,} | {cells(mine.get(mark))} | {cells(theirs.get(mark))}")
    both = sorted({*mine} & {*theirs})
    if both:
        last = both[-1]
        ratio = mine[last].cpu_s / theirs[last].cpu_s
        print(f"CPU at {last:,} trials: {ratio:.2f} of stock's")
    first, last = min(mine), max(mine)
    cpu, written = (
        getattr(mine[last], name) / getattr(mine[first], name) for name in ("cpu_s", "written")
    )
    print(f"TuneFleet at {last:,} trials to {first:,}: CPU {cpu:.2f}, bytes {written:.2f}")


def main() -> None:
    """Measures both and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--marks", type=int, nargs="+", default=[100, 500, 1000, 2000, 10_000])
    parser.add_argument("--stock-to", type=int, default=2000, help="its last mark; 0: leave it out")
    parser.add_argument("--window", type=int, default=200, help="trials to average over")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    window, workers = arguments.window, arguments.workers
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        mine = {mark: ours(folder, mark, window, workers) for mark in arguments.marks}
        marks = [mark for mark in arguments.marks if mark <= arguments.stock_to]
        print_table(mine, stock(folder, marks, window, workers) if marks else {})


if __name__ == "__main__":
    main()
