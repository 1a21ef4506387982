"""How many workers one chief carries, and how long a call of theirs then takes.

    python benchmarks/many_workers.py [--workers 1000 2000 5000] [--sampler random]
    python benchmarks/many_workers.py --workers 32 --trial 0 --reports 1   # proposals a second

Each simulated worker has a connection of its own and makes the calls of the real one: it
joins, asks for trials, reports, ends them and sends a heartbeat thrice in a lease; its trials
only sleep. They live in a few processes of asyncio clients. They come one after the other
within `--ramp` seconds, by default a trial's length (0: all at once), and calls count from
shortly after the last has come.

Latencies are taken at the client, so they include the time in which it was not given the
processor: `timer lag` is how late its own timer was meanwhile. A trial is timed from the
first CreateTrial to the one that brought it. Exit status 1 if a call failed.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import concurrent.futures
import dataclasses
import multiprocessing
import os
import pathlib
import resource
import tempfile
import time
from collections.abc import Awaitable
from typing import Any

import grpc
import grpc.aio
import psutil
from _fleet import NOOP, ChiefProcess, Spent, make_run, percentile

from hpo.fleet import fleet_pb2, fleet_pb2_grpc, wire
from hpo.study import digest_of

CALL_S = 20.0
LAG_S = 0.05
# From when the last worker has come to when calls begin to count.
SETTLE_S = 2.0
CALLS = ("trial", "report", "end", "heartbeat")


@dataclasses.dataclass(frozen=True)
class Load:
    """What every worker does. ``begin`` and ``end`` on the system's clock: when calls count."""

    address: str
    token: str
    lease_s: float
    trial_s: float
    reports: int
    begin: float
    end: float


class Seen:
    """Seconds by call, of the calls that count, and the names of errors; mergeable."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = collections.defaultdict(list)
        self.errors: collections.Counter[str] = collections.Counter()

    def add(self, other: Seen) -> None:
        """Takes over what another process has seen."""
        self.errors += other.errors
        for name, values in other.seconds.items():
            self.seconds[name] += values


class Worker:
    """One simulated worker."""

    def __init__(self, number: int, load: Load, seen: Seen) -> None:
        self._id, self._load, self._seen = f"worker-{number}", load, seen
        self._fence = 0
        # Otherwise gRPC has one connection for all that goes to the same address.
        options = [("grpc.use_local_subchannel_pool", 1)]
        self._channel = grpc.aio.insecure_channel(load.address, options=options)
        self._oracle = wire.stubs.OracleStub(self._channel)
        self._fleet = fleet_pb2_grpc.FleetStub(self._channel)
        self._metadata = [
            (wire.AUTHORIZATION, wire.bearer(load.token)),
            (wire.WORKER, self._id),
            (wire.INCARNATION, "1"),
        ]

    async def live(self, after_s: float) -> None:
        """Comes after a while and works until it is cancelled."""
        await asyncio.sleep(after_s)
        request = fleet_pb2.JoinRequest(host="here", pid=1, study_digest=digest_of(NOOP))
        while await self._timed("join", self._call(self._fleet.Join, request)) is None:
            continue
        await asyncio.gather(self._beat(), self._work())

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._load.lease_s / 3)
            beat = self._call(self._fleet.Beat, fleet_pb2.BeatRequest())
            await self._timed("heartbeat", beat)

    async def _work(self) -> None:
        while True:
            grant = await self._timed("trial", self._granted())
            if grant is not None:
                self._fence = grant.fence
                await self._trial(grant.trial_id)
                self._fence = 0

    async def _granted(self) -> fleet_pb2.Grant:
        """Asks until there is a trial, as the real worker does."""
        request = wire.service.CreateTrialRequest(tuner_id=self._id)
        while True:
            call = self._call(self._oracle.CreateTrial, request)
            await call
            trailing = dict(await call.trailing_metadata())
            if wire.GRANT in trailing:
                return fleet_pb2.Grant.FromString(trailing[wire.GRANT])

    async def _trial(self, trial_id: str) -> None:
        for step in range(1, self._load.reports + 1):
            await asyncio.sleep(self._load.trial_s / self._load.reports)
            report = wire.service.UpdateTrialRequest(
                trial_id=trial_id, metrics={"loss": 1 / step}, step=step
            )
            await self._timed("report", self._call(self._oracle.UpdateTrial, report))
        trial = wire.types.Trial(trial_id=trial_id, status=wire.types.COMPLETED)
        end = wire.service.EndTrialRequest(trial=trial)
        await self._timed("end", self._call(self._oracle.EndTrial, end))

    def _call(self, method: Any, request: Any) -> Any:
        metadata = [*self._metadata, (wire.FENCE, str(self._fence))]
        return method(request, metadata=metadata, timeout=CALL_S)

    async def _timed(self, name: str, answer: Awaitable[Any]) -> Any:
        """The answer, with what it took noted; None after a pause if the call failed."""
        began = time.time()
        try:
            found = await answer
        except grpc.RpcError as error:
            if time.time() < self._load.end:
                self._seen.errors[f"{name}: {error.code().name}"] += 1
            await asyncio.sleep(1.0)
            return None
        ended = time.time()
        if self._load.begin <= began and ended <= self._load.end:
            self._seen.seconds[name].append(ended - began)
        return found


def live(load: Load, comings: dict[int, float]) -> Seen:
    """Runs workers, by number with the seconds until each comes, to the end of the load."""
    return asyncio.run(_live(load, comings))


async def _live(load: Load, comings: dict[int, float]) -> Seen:
    seen = Seen()
    tasks = [asyncio.create_task(_lag(load, seen))]
    for number, after_s in comings.items():
        tasks.append(asyncio.create_task(Worker(number, load, seen).live(after_s)))
    await asyncio.sleep(load.end - time.time())
    for task in tasks:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(outcome, Exception):
            seen.errors[repr(outcome)] += 1
    return seen


async def _lag(load: Load, seen: Seen) -> None:
    """How late this process's own timer is: what it adds to every latency."""
    while True:
        began = time.time()
        await asyncio.sleep(LAG_S)
        if began >= load.begin:
            seen.seconds["timer lag"].append(time.time() - began - LAG_S)


def measure(folder: pathlib.Path, workers: int, options: argparse.Namespace) -> bool:
    """Puts ``workers`` on a chief of their own and prints what was seen; whether all went well."""
    run = make_run(folder, f"with-{workers}", sampler=options.sampler)
    ramp = options.trial if options.ramp is None else options.ramp
    with ChiefProcess(run) as chief:
        address, _ = chief.serving()
        if os.environ.get("DIRECT"):
            import glob

            address = "unix:" + max(glob.glob("/tmp/tunefleet-gate-*/grpc"), key=os.path.getmtime)
        if options.files:
            psutil.Process(chief.pid).rlimit(resource.RLIMIT_NOFILE, (options.files, options.files))
        start = time.time() + 2.0 + workers / 500
        begin = start + ramp + SETTLE_S
        load = Load(
            address,
            run.token,
            run.lease_s,
            options.trial,
            options.reports,
            begin,
            begin + options.seconds,
        )
        with concurrent.futures.ProcessPoolExecutor(
            options.processes, multiprocessing.get_context("spawn")
        ) as pool:
            shares = [
                range(first, workers, options.processes) for first in range(options.processes)
            ]
            pending = [
                pool.submit(
                    live, load, {n: start - time.time() + ramp * n / workers for n in share}
                )
                for share in shares
            ]
            spent, files = _watch(chief.pid, load)
            seen = Seen()
            for part in pending:
                seen.add(part.result())
    print_seen(workers, seen, spent, files)
    return not seen.errors


def _watch(pid: int, load: Load) -> tuple[Spent, int]:
    """What the chief uses while calls count, and how many files it has open by then."""
    time.sleep(max(0.0, load.begin - time.time()))
    before = Spent.by(pid)
    time.sleep(max(0.0, load.end - time.time() - 0.5))
    return before.until(Spent.by(pid)), psutil.Process(pid).num_fds()


def print_seen(workers: int, seen: Seen, spent: Spent, files: int) -> None:
    """A row for each kind of call, and what the chief used."""
    print(f"{workers:,} workers")
    print(f"  {'':10} {'calls/s':>8} {'p50 ms':>8} {'p99 ms':>8} {'max ms':>8}")
    total = 0.0
    for name in (*CALLS, "timer lag"):
        values = seen.seconds[name]
        rate = len(values) / spent.wall_s
        total += rate if name in CALLS else 0.0
        marks = (percentile(values, 0.5), percentile(values, 0.99), max(values, default=0.0))
        cells = " ".join(f"{1e3 * value:8.1f}" for value in marks)
        print(f"  {name:10} {rate:8.1f} {cells}")
    share = spent.cpu_s / spent.wall_s
    print(
        f"  chief: {share:.0%} of a core, {1e3 * share / total if total else 0:.2f} ms of CPU a "
        f"call, {spent.written / spent.wall_s / 1e3:,.0f} kB written a second, {files:,} files"
    )
    for error, count in seen.errors.most_common(5):
        print(f"  failed: {error} ({count} times)")
    print(flush=True)


def main() -> int:
    """Measures each number of workers in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1000])
    parser.add_argument("--sampler", default="random")
    parser.add_argument("--trial", type=float, default=10.0, help="seconds of a trial")
    parser.add_argument("--reports", type=int, default=5, help="reports in a trial")
    parser.add_argument("--ramp", type=float, help="seconds in which the workers come")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long calls count")
    parser.add_argument("--processes", type=int, default=min(4, os.cpu_count() or 1))
    parser.add_argument("--files", type=int, help="the limit of open files for the chief")
    options = parser.parse_args()
    # Inherited by the chief: a connection is a file.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory() as name:
        went_well = [measure(pathlib.Path(name), workers, options) for workers in options.workers]
    return 0 if all(went_well) else 1


if __name__ == "__main__":
    raise SystemExit(main())
