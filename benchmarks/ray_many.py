"""What two thousand trials cost the driver of a search by engine `ray` on many slots.

    python benchmarks/ray_many.py [--marks 500 1000 2000] [--slots 64] [--window 250]

A Ray of one machine that says it has so many processors, and a worker on each. Trials compute
nothing. At each mark: the memory of the driver, which is the leader with Ray Tune in it, the
processor time that it used for each of the last trials, what all processes of the search used,
and the time that passed. Sampler random, so that nothing thinks.
"""

from __future__ import annotations

import argparse
import pathlib
import tempfile
import time

import psutil
from _fleet import NOOP
from ray_overhead import Group, started

from hpo.ledger import LedgerReader
from hpo.run import Run
from hpo.trial import TrialState

_POLL_S = 1.0


def leader_of(folder: pathlib.Path) -> psutil.Process:
    """The driver's process."""
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "cluster.entrypoint" in words and words[-1] == str(folder.resolve()):
            return process
    raise AssertionError("the search has no leader")


def reach(reader: LedgerReader, count: int) -> int:
    """How many trials have completed, once these are ``count`` or more."""
    while True:
        found = (attempt.record.state for attempt in reader.attempts(history=False))
        ended = sum(state is TrialState.COMPLETED for state in found)
        if ended >= count:
            return ended
        time.sleep(_POLL_S)


def measure(folder: pathlib.Path, marks: list[int], slots: int, window: int) -> list[list[str]]:
    """A row for each mark."""
    options = ["--engine", "ray", "--seed", "1", "--id", "many", "--workers", str(slots)]
    command = ("launch.py", "run", str(NOOP), *options, "--trials", str(max(marks)))
    group, rows = Group("many"), []
    with started(group, *command, "--runs", str(folder)) as search:
        while not (folder / "many" / "ledger.db").exists():
            assert search.poll() is None, "the search did not begin"
            time.sleep(_POLL_S)
        reader = Run(folder / "many").reader()
        try:
            reach(reader, 1)
            leader = leader_of(folder / "many")
            for mark in marks:
                first = reach(reader, mark - window)
                used, all_used = sum(leader.cpu_times()[:2]), group.cpu_s()
                began = time.monotonic()
                # The driver leaves when the last one has ended.
                last = reach(reader, mark - slots)
                passed, trials = time.monotonic() - began, last - first
                own = sum(leader.cpu_times()[:2]) - used
                memory = leader.memory_info().rss / 2**20
                cells = [own / trials, (group.cpu_s() - all_used) / trials, passed / trials]
                rows.append([f"{mark:,}", f"{memory:.0f} MiB", *(f"{c:.3f} s" for c in cells)])
                print(*rows[-1], flush=True)
        finally:
            reader.close()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--marks", type=int, nargs="+", default=[500, 1000, 2000])
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--window", type=int, default=250)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(pathlib.Path(folder), sorted(options.marks), options.slots, options.window)
    heads = ("trials", "driver memory", "driver CPU", "all CPU", "clock")
    print("\n" + "".join(f"{head:>15}" for head in heads) + "   (CPU and clock for each trial)")
    for row in rows:
        print("".join(f"{cell:>15}" for cell in row))


if __name__ == "__main__":
    main()
