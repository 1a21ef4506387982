"""A chief that is killed (kill -9) again and again while it is busy: is its state ever unreadable?

    python benchmarks/kill_chief.py [--kills 100] [--workers 4] [--seed 1]

The workers are the product's own client on real gRPC, with trials that take no time. After
each kill the ledger is read whole before another chief is started, and held against what had
been acknowledged to the workers up to then. Exit status 1 if anything was found.

`--stock` does the same to stock KerasTuner's chief and counts the JSON files that no longer
parse; its one worker starts anew with each chief, since a call under way would kill it.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import pathlib
import random
import tempfile
import threading
import time
from collections.abc import Iterable

from _fleet import NOOP, ChiefProcess, make_run, percentile
from _stock import Stock

from hpo.fleet.client import ChiefClient, Granted, LostError, UnknownError
from hpo.protocol import Attempt
from hpo.run import Run
from hpo.study import digest_of
from hpo.trial import Report, TrialState

# As (trial, attempt): what a chief has said to be safe.
Results = dict[tuple[str, int], float]


class Worker(threading.Thread):
    """A worker without a trial process; ``acknowledged`` is all that the chief answered to."""

    def __init__(self, address: str, token: str, number: int) -> None:
        super().__init__(name=f"worker-{number}", daemon=True)
        self._client = ChiefClient(address, token, self.name, "1")
        self.acknowledged: Results = {}

    def run(self) -> None:
        self._join()
        while True:
            try:
                granted = self._client.create_trial(self.name)
                if isinstance(granted, Granted):
                    self._trial(granted)
            except UnknownError:
                self._join()
            except LostError:
                continue

    def _join(self) -> None:
        self._client.join("here", os.getpid(), "none", digest_of(NOOP))

    def _trial(self, granted: Granted) -> None:
        value = float(granted.fence)
        for step in (1, 2):
            self._client.report(granted, Report(step, {"loss": value + 2 - step}))
        self._client.end(granted, completed=True)
        self.acknowledged[granted.trial_id, granted.attempt] = value


def look(run: Run, acknowledged: Results) -> list[str]:
    """What is wrong with a run's ledger, every record of which is read."""
    try:
        with contextlib.closing(run.reader()) as reader:
            attempts, workers = list(reader.attempts()), reader.workers()
            reader.sessions(), reader.meta()
    except Exception as error:
        return [f"unreadable: {error}"]
    here = collections.Counter(row.info.worker_id for row in workers if row.left_at is None)
    twice = [f"worker {name} is there twice" for name, count in here.items() if count > 1]
    return [*_lost(attempts, acknowledged), *_broken_rules(attempts), *twice]


def _lost(attempts: Iterable[Attempt], acknowledged: Results) -> list[str]:
    """Results that were acknowledged and are not, or not as they were, in the ledger."""
    stored = {
        (a.record.trial_id, a.record.attempt): a.record.value
        for a in attempts
        if a.record.state is TrialState.COMPLETED and len(a.record.history) == 2
    }
    return [
        f"trial {key[0]}, attempt {key[1]} was acknowledged and is gone"
        for key, value in acknowledged.items()
        if stored.get(key) != value
    ]


def _broken_rules(attempts: list[Attempt]) -> list[str]:
    """What no ledger may hold, whenever its chief was killed."""
    wrong = []
    fences = collections.Counter(a.fence for a in attempts if a.fence)
    if any(count > 1 for count in fences.values()):
        wrong.append("a fencing number was given twice")
    running = collections.Counter(
        a.record.worker for a in attempts if a.record.state is TrialState.RUNNING
    )
    if any(count > 1 for count in running.values()):
        wrong.append("a worker runs two attempts")
    by_trial = collections.defaultdict(list)
    for attempt in attempts:
        by_trial[attempt.record.trial_id].append(attempt.record)
    for trial_id, records in by_trial.items():
        if [record.attempt for record in records] != list(range(1, len(records) + 1)):
            wrong.append(f"trial {trial_id} lacks an attempt")
        if any(record.state is not TrialState.FAILED for record in records[:-1]):
            wrong.append(f"trial {trial_id} went on after it had ended")
    return wrong


def kill_ours(folder: pathlib.Path, kills: int, workers: int, seed: int) -> int:
    """Kills our chief; how many times something was wrong."""
    rng = random.Random(seed)
    run = make_run(folder, "killed")
    chief = ChiefProcess(run)
    address, _ = chief.serving()
    port = int(address.rpartition(":")[2])
    fleet = [Worker(address, run.token, number) for number in range(workers)]
    for worker in fleet:
        worker.start()
    found, back = 0, []
    for number in range(1, kills + 1):
        time.sleep(rng.uniform(0.05, 2.0))
        # What is noted before the kill was acknowledged before it.
        acknowledged = {k: v for w in fleet for k, v in w.acknowledged.copy().items()}
        chief.kill()
        wrong = look(run, acknowledged)
        found += bool(wrong)
        for line in wrong[:5]:
            print(f"kill {number}: {line}", flush=True)
        chief = ChiefProcess(run, port)
        back.append(chief.serving()[1])
    done = sum(len(worker.acknowledged) for worker in fleet)
    chief.kill()
    print(
        f"TuneFleet: {found} of {kills} kills left something wrong; {done:,} results were "
        f"acknowledged; the next chief served after {percentile(back, 0.5):.2f} s "
        f"(the longest {max(back):.2f} s)"
    )
    return found


def kill_stock(folder: pathlib.Path, kills: int, seed: int) -> None:
    """Kills KerasTuner's chief and prints how often it left files that do not parse."""
    rng = random.Random(seed)
    oracles = trials = fresh = 0
    for _ in range(kills):
        stock = Stock(folder / str(fresh))
        with contextlib.suppress(Exception), stock:
            worker = stock.worker()
            threading.Thread(target=worker.work, daemon=True).start()
            time.sleep(rng.uniform(0.5, 1.5))
            stock.kill()
        bad = stock.unreadable()
        oracles += "oracle.json" in bad
        trials += "trial.json" in bad
        # Each chief goes on from the files of the one before, where these can be read.
        fresh += bool(bad)
    print(
        f"stock KerasTuner: of {kills} kills {oracles} left an unreadable oracle.json and "
        f"{trials} an unreadable trial.json"
    )


def main() -> int:
    """Prints what was found; 1 if anything was."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--stock", action="store_true", help="kill KerasTuner's chief instead")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if arguments.stock:
            kill_stock(pathlib.Path(name), arguments.kills, arguments.seed)
            return 0
        return bool(
            kill_ours(pathlib.Path(name), arguments.kills, arguments.workers, arguments.seed)
        )


if __name__ == "__main__":
    raise SystemExit(main())
