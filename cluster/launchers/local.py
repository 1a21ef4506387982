"""This machine: a chief and workers as processes, replaced when they die."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import IO

from cluster.plan import JobPlan, ProcessPlan
from cluster.process import DEATHS, Process, last_words, start, start_chief
from hpo import env
from hpo._internal.process_tree import end_children
from hpo.address import from_here, joined
from hpo.crew import EXIT_DISMISSED, Crew
from hpo.engines.base import load_engine
from hpo.errors import PlaceError
from hpo.ledger import LedgerReader

_POLL_S = 0.1
_SHOW_S = 0.5
# A leader that starts Ray on a busy machine needs long.
_START_S = 180.0
_LEAVE_S = 15.0
# The chief's own verdicts: done, nothing completed, refused, its place failed, drained.
_FINAL = (0, 1, 2, 3, 75)
# A worker's, told by the chief that the search is over; the chief is about to leave too.
_SENT_AWAY = (0, 75)


class Reserve:
    """Workers that import a study before there is a run, for the run that follows.

    The first of them also reads it, since it has imported what that takes. Used as a
    context: who was not called up by the end of it is ended.
    """

    def __init__(self, plans: Sequence[ProcessPlan]) -> None:
        self._plans = plans
        self._waiting: list[Process] = []
        self._reading: IO[str] | None = None

    def __enter__(self) -> Reserve:
        try:
            for number, plan in enumerate(self._plans):
                self._waiting.append(self._start_reader(plan) if number == 0 else start(plan))
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start_reader(self, plan: ProcessPlan) -> Process:
        receiving, sending = os.pipe()
        self._reading = os.fdopen(receiving)
        told = {**plan.environment, env.READ_TO: str(sending)}
        try:
            return start(dataclasses.replace(plan, environment=told), keep_open=[sending])
        finally:
            os.close(sending)

    def read(self) -> str:
        """The study as :func:`hpo.child.reply` says it; empty if nobody here could read it."""
        return self._reading.read() if self._reading else ""

    def __exit__(self, *_: object) -> None:
        for process in self._waiting:
            # With its fork server, which would go on importing for a while.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.popen.pid, signal.SIGKILL)
            process.popen.wait()
        if self._reading:
            self._reading.close()

    def call_up(self, number: int, plan: JobPlan, port: int) -> Process | None:
        """The ``number``-th worker of ``plan``, told its role; None if none is waiting."""
        if not self._waiting:
            return None
        process = self._waiting.pop(0)
        told = {"environment": plan.role(1 + number, port), "log": str(plan.log(1 + number))}
        assert process.popen.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.popen.stdin.write(json.dumps(told).encode() + b"\n")
            process.popen.stdin.flush()
        return dataclasses.replace(process, plan=plan.worker(number, port))


def supervise(
    plan: JobPlan,
    scaled: Callable[[int], JobPlan],
    reserve: Reserve,
    show: Callable[[], None],
) -> int:
    """Runs ``plan`` to its end in the foreground; answers the chief's exit status.

    Its first workers are those in ``reserve``, if there are any. ``scaled`` makes the plan
    for another number of workers, which the ledger says are wanted. The caller holds the
    run's supervisor lock.

    ``show`` is called about twice a second. Ctrl-C drains, a second one stops at once;
    SIGTERM drains, and stops after the plan's grace period. When this returns or raises, none
    of the processes is left.
    """
    with _Signals() as signals, contextlib.closing(plan.run.reader()) as reader:
        return _Supervisor(plan, scaled, reader, reserve, signals, show).run()


class _Signals:
    """Counts the signals that ask for an end, and notes when the first SIGTERM came."""

    def __init__(self) -> None:
        self.interrupts = 0
        self.terminations = 0
        self._terminated_at = math.inf
        self._before: dict[int, object] = {}

    def __enter__(self) -> _Signals:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._count)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def urgency(self, grace_s: float) -> int:
        """How an end is asked for: 0 not at all, 1 when running trials have ended, 2 now."""
        if time.monotonic() - self._terminated_at > grace_s:
            return 2
        return min(2, self.interrupts + self.terminations)

    def _count(self, number: int, _: object) -> None:
        if number == signal.SIGINT:
            self.interrupts += 1
        else:
            self.terminations += 1
            self._terminated_at = min(self._terminated_at, time.monotonic())


class _Supervisor:
    def __init__(
        self,
        plan: JobPlan,
        scaled: Callable[[int], JobPlan],
        reader: LedgerReader,
        reserve: Reserve,
        signals: _Signals,
        show: Callable[[], None],
    ) -> None:
        self._plan = plan
        self._scaled = scaled
        self._reader = reader
        self._reserve = reserve
        self._signals = signals
        self._show = show
        self._port = plan.spec.port
        self._chief: Process | None = None
        self._workers: dict[int, Process] = {}
        self._drained = 0

    def run(self) -> int:
        """Starts everything, keeps it alive, and answers the chief's exit status."""
        try:
            self._chief = start_chief(self._plan.chief(self._port))
            self._port = self._wait_for_chief(self._chief)
            for number in range(len(self._plan.devices)):
                self._workers[number] = self._first_worker(number)
            status = self._attend()
            self._wait_for_workers()
            return self._interrupted(status)
        finally:
            self._end_all()

    def _first_worker(self, number: int) -> Process:
        waiting = self._reserve.call_up(number, self._plan, self._port)
        return waiting or start(self._plan.worker(number, self._port))

    def _attend(self) -> int:
        """Until the chief leaves of its own accord."""
        shown = 0.0
        while True:
            status = self._look_after_chief()
            if status is not None:
                return status
            self._look_after_workers()
            self._drain_if_asked()
            if time.monotonic() - shown > _SHOW_S:
                self._show()
                shown = time.monotonic()
            time.sleep(_POLL_S)

    def _look_after_chief(self) -> int | None:
        chief = self._chief
        assert chief is not None
        status = chief.popen.poll()
        if status is None:
            return None
        self._end_orphans()
        if status in (2, 3):
            raise last_words(chief, status)
        if status in _FINAL:
            return status
        if chief.died_too_often(status):
            raise PlaceError(
                f"the chief died {DEATHS} times in a row (last status {status}): "
                f"see {chief.plan.log}"
            )
        if chief.words:
            chief.words.close()
        self._chief = start_chief(self._plan.chief(self._port), chief.deaths)
        self._wait_for_chief(self._chief)
        # The new one knows nothing of a drain, nor of those whom the old one sent away for it.
        self._drained = 0
        self._workers = {n: w for n, w in self._workers.items() if w.popen.poll() is None}
        return None

    def _look_after_workers(self) -> None:
        """Replaces those that died, and starts those that are wanted besides."""
        ended = {n: w for n, w in self._workers.items() if w.popen.poll() is not None}
        # Read after that look: what a worker left for is in the ledger before it is told.
        self._follow_scale()
        if ended:
            self._end_orphans()
        wanted = range(len(self._plan.devices))
        for number, worker in ended.items():
            if number not in wanted:
                del self._workers[number]
            elif worker.popen.returncode not in _SENT_AWAY:
                self._workers[number] = self._replacement(number, worker)
        for number in wanted:
            if number not in self._workers:
                self._workers[number] = start(self._plan.worker(number, self._port))

    def _replacement(self, number: int, worker: Process) -> Process:
        status = worker.popen.returncode
        if status != EXIT_DISMISSED and worker.died_too_often(status):
            raise PlaceError(
                f"{worker.plan.role} died {DEATHS} times in a row (last status {status}): "
                f"see {worker.plan.log}"
            )
        return start(self._plan.worker(number, self._port), worker.deaths)

    def _end_orphans(self) -> None:
        """Ends what processes of the search that are gone have left running.

        A trial's own child would keep its GPU. Ray's agents look for a leader that was killed for
        more than a minute.
        """
        own = [*self._workers.values(), *([self._chief] if self._chief else [])]
        end_children(spare=[process.popen.pid for process in own])

    def _follow_scale(self) -> None:
        """Plans for as many workers as the ledger says are wanted now."""
        size = Crew.from_meta(self._reader.meta()).size
        if size != self._plan.spec.workers:
            self._plan = self._scaled(size)

    def _drain_if_asked(self) -> None:
        asked = self._signals.urgency(self._plan.spec.grace_s)
        if asked <= self._drained:
            return
        if asked == 1:
            self._say_what_comes()
        run = self._plan.run
        try:
            engine, suspend = load_engine(run.request.engine), bool(self._signals.terminations)
            engine.drain(run, self._address, immediate=asked > 1, suspend=suspend)
        except PlaceError:
            # It is on its way back from a crash: asked again at the next look.
            return
        self._drained = asked

    def _say_what_comes(self) -> None:
        if self._signals.terminations:
            seconds = self._plan.spec.grace_s
            print(
                f"running trials may end or be saved within {seconds:g} s, then they are put back"
            )
        else:
            print("letting running trials end; Ctrl-C again stops them now")
        sys.stdout.flush()

    @property
    def _address(self) -> str:
        return joined(from_here(self._plan.spec.host), self._port)

    def _wait_for_chief(self, chief: Process) -> int:
        """The port at which ``chief`` serves; raises its own error if it left instead."""
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            reader = self._plan.run.reader()
            try:
                sessions = reader.sessions()
            finally:
                reader.close()
            if sessions and sessions[-1]["pid"] == chief.popen.pid:
                return int(sessions[-1]["address"].rpartition(":")[2])
            status = chief.popen.poll()
            if status is not None and status > 0:
                # Also Python's own 1, which is no verdict of a chief that never served.
                raise last_words(chief, status)
            if status is not None:
                # Killed before it served: whoever looks after it starts another.
                return self._port
            time.sleep(0.02)
        raise PlaceError(f"the chief did not start within {_START_S:.0f} s: see {chief.plan.log}")

    def _wait_for_workers(self) -> None:
        deadline = time.monotonic() + _LEAVE_S
        while time.monotonic() < deadline:
            if all(worker.popen.poll() is not None for worker in self._workers.values()):
                return
            time.sleep(0.02)

    def _interrupted(self, status: int) -> int:
        """A search that a Ctrl-C left unfinished says so by the shell's own status for it."""
        return 130 if status == 75 and self._signals.interrupts else status

    def _end_all(self) -> None:
        processes = [*self._workers.values(), *([self._chief] if self._chief else [])]
        for process in processes:
            # Agents and chief leave by themselves when their standard input closes.
            with contextlib.suppress(BrokenPipeError):
                assert process.popen.stdin is not None
                process.popen.stdin.close()
        for process in processes:
            try:
                process.popen.wait(_LEAVE_S)
            except subprocess.TimeoutExpired:
                process.popen.kill()
                process.popen.wait()
        self._end_orphans()
