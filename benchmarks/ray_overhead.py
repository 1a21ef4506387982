"""What a trial costs beside its training: engine `ray` and plain Ray Tune with OptunaSearch.

    python benchmarks/ray_overhead.py [--marks 100 500 1000] [--window 50] [--workers 2]

Both run trials that compute nothing, with Ray's OptunaSearch, first one and then the other;
with ``--sampler random`` ours runs without it, to see what the engine itself costs.
Up to each mark, over the last trials before it: the CPU that all processes of the search used
for a trial, Ray's own among them, and the time that passed. A control group counts it, which
Linux lets root make: Ray ends processes now and then, and what these had used must not be lost.
Engine `ray` keeps each trial in a process of its own and makes every step durable, which plain
Ray does not.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator

from _fleet import NOOP, ROOT

from hpo.run import Run
from hpo.trial import TrialState

_POLL_S = 0.1
_END_S = 20.0


@dataclasses.dataclass
class Cost:
    """Seconds of CPU, and on the clock, for one trial."""

    cpu: float
    wall: float


class Group:
    """A control group: the CPU of all processes that were ever in it."""

    def __init__(self, name: str) -> None:
        lines = pathlib.Path("/proc/mounts").read_text().splitlines()
        mounts = [line.split()[1] for line in lines if line.split()[2] == "cgroup2"]
        self._folder = pathlib.Path(mounts[0]) / f"tunefleet-{name}-{os.getpid()}"
        self._folder.mkdir()

    def enter(self) -> None:
        """In a process: it and all that it will start belong to the group."""
        (self._folder / "cgroup.procs").write_text("0")

    def cpu_s(self) -> float:
        """Seconds so far."""
        stat = (self._folder / "cpu.stat").read_text().split()
        return int(stat[stat.index("usage_usec") + 1]) / 1e6

    def close(self) -> None:
        """Ends whatever is left of it."""
        deadline = time.monotonic() + _END_S
        while (left := (self._folder / "cgroup.procs").read_text().split()) and (
            time.monotonic() < deadline
        ):
            time.sleep(_POLL_S)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        with contextlib.suppress(OSError):
            self._folder.rmdir()


@contextlib.contextmanager
def started(
    group: Group, *command: str, output: int = subprocess.DEVNULL
) -> Iterator[subprocess.Popen[str]]:
    """A search as a process, ended with all that it started."""
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        stdout=output,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        preexec_fn=group.enter,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=120)
        group.close()


def measure(group: Group, ended: Callable[[], int], marks: list[int], window: int) -> list[Cost]:
    """The cost of a trial before each mark; ``ended`` says how many have ended so far."""
    costs = []
    for mark in sorted(marks):
        first = _reach(mark - window, ended)
        cpu, wall = group.cpu_s(), time.monotonic()
        last = _reach(mark, ended)
        trials = last - first
        used, passed = group.cpu_s() - cpu, time.monotonic() - wall
        costs.append(Cost(used / trials, passed / trials))
        print(f"{mark:,} trials: {costs[-1]}", flush=True)
    return costs


def _reach(count: int, ended: Callable[[], int]) -> int:
    while (found := ended()) < count:
        time.sleep(_POLL_S)
    return found


class Count:
    """The last number that a process printed, read as it comes.

    One that reads a line and then waits falls behind trials that end faster than it waits.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self.last = 0
        threading.Thread(target=self._read, args=(lines,), daemon=True).start()

    def _read(self, lines: Iterable[str]) -> None:
        for line in lines:
            if line.strip().isdecimal():
                self.last = int(line)


def plain(marks: list[int], window: int, workers: int) -> list[Cost]:
    """Ray Tune alone."""
    trials = str(max(marks) + window)
    command = ("benchmarks/plain_ray.py", trials, str(workers))
    group = Group("plain")
    with started(group, *command, output=subprocess.PIPE) as process:
        assert process.stdout is not None
        count = Count(process.stdout)

        def ended() -> int:
            assert process.poll() is None, "plain Ray ended before its time"
            return count.last

        return measure(group, ended, marks, window)


def ours(
    folder: pathlib.Path, sampler: str, marks: list[int], window: int, workers: int
) -> list[Cost]:
    """The same search by engine `ray`."""
    options = ["--engine", "ray", "--sampler", sampler, "--seed", "1", "--id", "noop"]
    options += ["--trials", str(max(marks) + window), "--workers", str(workers)]
    command = ("launch.py", "run", str(NOOP), *options, "--runs", str(folder))
    group = Group("ours")
    with started(group, *command) as process:
        while not (folder / "noop" / "ledger.db").exists():
            assert process.poll() is None, "the search did not begin"
            time.sleep(_POLL_S)
        reader = Run(folder / "noop").reader()

        def ended() -> int:
            assert process.poll() is None, "the search ended before its time"
            found = (a.record.state for a in reader.attempts(history=False))
            return sum(state is TrialState.COMPLETED for state in found)

        try:
            return measure(group, ended, marks, window)
        finally:
            reader.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--marks", type=int, nargs="+", default=[100, 500, 1000])
    parser.add_argument("--window", type=int, default=50)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--sampler", default="ray:optuna", help="of ours (ray:optuna)")
    options = parser.parse_args()
    marks = sorted(options.marks)
    theirs = plain(marks, options.window, options.workers)
    with tempfile.TemporaryDirectory() as folder:
        own = ours(pathlib.Path(folder), options.sampler, marks, options.window, options.workers)
    print(f"\n{'trials':>8}{'plain CPU':>12}{'ours CPU':>12}{'plain wall':>12}{'ours wall':>12}")
    for mark, one, other in zip(marks, theirs, own, strict=True):
        cells = (one.cpu, other.cpu, one.wall, other.wall)
        print(f"{mark:>8,}" + "".join(f"{cell:>10.3f} s" for cell in cells))


if __name__ == "__main__":
    main()
