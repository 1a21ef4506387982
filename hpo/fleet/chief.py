"""The chief: drives one coordinator, and makes its effects happen.

Everything runs in one event loop. Only three things happen elsewhere, each in a thread of
its own so that none of them can hold up a worker's call: the sampler thinks, the ledger
writes, TensorBoard's files are written.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import itertools
import logging
import math
import os
import pathlib
import socket
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from hpo.checkpoint_store import CheckpointStore
from hpo.coordinator import Coordinator
from hpo.errors import PlaceError, TuneFleetError
from hpo.fleet.projection import TENSORBOARD, Kind, Projection
from hpo.fleet.scribe import Scribe
from hpo.leaving import SAMPLER
from hpo.ledger import SPENT, LedgerWriter
from hpo.protocol import (
    AskSampler,
    EarlyEnd,
    Effect,
    Spent,
    StoreAttempt,
    TellSampler,
)
from hpo.run import Run
from hpo.samplers.base import Answer
from hpo.terms import Terms
from hpo.trial import Direction, TrialRecord, TrialState
from hpo.weights import WeightsStore

log = logging.getLogger("tunefleet.chief")

_TICK_S = 0.25
_T = TypeVar("_T")


class SystemClock:
    """The machine's own clocks."""

    def monotonic(self) -> float:
        """Seconds since some start."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since the epoch."""
        return time.time()


class Chief:
    """One run's search. Opening it takes the run's lock; RunError if another chief has it.

    What ``projections`` show is written behind the search.
    """

    def __init__(self, run: Run, projections: Sequence[Kind] = (TENSORBOARD,)) -> None:
        self.run = run
        self.clock = SystemClock()
        self.ledger = LedgerWriter(run.folder)
        reader = run.reader()
        attempts, workers = list(reader.attempts()), reader.workers()
        spent = Spent(**reader.meta().get(SPENT, {}))
        reader.close()
        self.coordinator = Coordinator(
            run.rules, self.clock, attempts, workers, spent, run.crew, run.pruner()
        )
        self.weights = WeightsStore(run.weights)
        self.checkpoints = CheckpointStore(run.checkpoints, run.checkpoint_gb * 1e9)
        records = [attempt.record for attempt in attempts]
        self._sampler = run.sampler()
        self._sampler.restore(_last_attempts(records))
        self._thinking = concurrent.futures.ThreadPoolExecutor(1, SAMPLER)
        self._projections = [Projection(kind, run, records) for kind in projections]
        self._scribe = Scribe(self.ledger, self.clock, self._show, self.fail)
        # Those who wait for a trial, in the order in which they came.
        self._waiters: dict[asyncio.Future[None], None] = {}
        self._news = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        # How many workers can be at work at once where they run; None: as many as one likes.
        self.room: int | None = None
        self._failure: TuneFleetError | None = None
        self._abandoned = False

    async def apply(self, event: Callable[[Coordinator], _T]) -> _T:
        """Lets something happen and answers once all that it changed is durable."""
        answer = event(self.coordinator)
        await self._settle()
        return answer

    def keep_doing(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs ``work`` beside the search; if it fails, so does the chief."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    async def something_changed(self, timeout_s: float) -> None:
        """Waits until there may be a trial to hand out, or for ``timeout_s``.

        Who waits longest is woken first, and only as many as there are trials: a thousand
        that all ask at every news would keep the chief from everything else.
        """
        waiter = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = None
        timer = asyncio.get_running_loop().call_later(timeout_s, _wake, waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiters.pop(waiter, None)

    def wants_weights(self, value: float) -> bool:
        """Whether the weights of a trial worth ``value`` would be the best ones."""
        best = self.coordinator.best
        return self.coordinator.rules.direction.better(value, best.value if best else None)

    def forget_other_weights(self) -> None:
        """Keeps the best trial's weights and those of trials that have not ended."""
        if self.weights.empty:
            return
        keep = {record.trial_id for record in self.coordinator.pending}
        if self.coordinator.best:
            keep.add(self.coordinator.best.trial_id)
        self.weights.keep_only(keep)

    @property
    def terms(self) -> Terms:
        """How every trial is to be run."""
        run = self.run
        return Terms(
            study=run.study,
            split_seed=run.seed,
            epochs=run.request.epochs,
            train_examples=run.request.train_examples,
            schedule=dataclasses.replace(run.schedule, last=self._sampler.promotes),
            settings=run.settings,
        )

    def checkpoint_for(self, record: TrialRecord) -> pathlib.Path | None:
        """What a trial goes on from: its own last checkpoint, or that of whom it follows."""
        if self.checkpoints.empty:
            return None
        own = self.checkpoints.latest(record.trial_id)
        if own or record.resume_from is None:
            return own
        return self.checkpoints.latest(record.resume_from)

    def tidy_checkpoints(self) -> None:
        """Keeps those that something may go on from; the best of them where room is short."""
        if self.checkpoints.empty:
            return
        values = {record.trial_id: record.value for record in self.coordinator.pending}
        if self._sampler.promotes:
            values |= self.coordinator.values
        sign = -1.0 if self.coordinator.rules.direction is Direction.MAX else 1.0
        found = [trial_id for trial_id in self.checkpoints.trials() if trial_id in values]

        def badness(trial_id: str) -> float:
            value = values[trial_id]
            return math.inf if value is None else sign * value

        for trial_id in self.checkpoints.keep(sorted(found, key=badness)):
            log.warning("no room for the checkpoint of trial %s: see --checkpoint-gb", trial_id)

    def abandon(self) -> None:
        """Leaves now: whoever looked after this run is gone, and its workers with it."""
        self._abandoned = True
        self.coordinator.drain(immediate=True)
        self._notify()

    def fail(self, error: TuneFleetError) -> None:
        """Something without which the chief cannot go on has failed."""
        if self._failure is None:
            log.error("%s", error)
            self._failure = error
        self._notify()

    async def serve(self, address: str) -> int:
        """Leads the search to its end under ``address``; answers the exit status.

        Raises the error of whatever failed that the chief cannot do without.
        """
        now = self.clock.wall()
        self.ledger.begin_session(socket.gethostname(), os.getpid(), address, now)
        log.info("serving run %s at %s", self.run.id, address)
        await self._settle()
        while not self._may_leave():
            await self._next_tick()
            await self.apply(lambda coordinator: coordinator.tick())
            # Whoever was woken may have left with its turn unused.
            self._notify()
        if self._failure:
            raise self._failure
        if self.coordinator.early_end is EarlyEnd.NO_WORKERS:
            raise PlaceError(self.coordinator.early_words)
        status = self._exit_status()
        log.info("leaving with exit status %d", status)
        return status

    def close(self) -> None:
        """Gives up the run; what is queued is written first.

        A sampler that still thinks, for minutes maybe, is left to :mod:`hpo.leaving`; what it has
        yet to be told is in the ledger.
        """
        self._thinking.shutdown(wait=False, cancel_futures=True)
        for projection in self._projections:
            projection.close()
        if self._failure is None:
            self.ledger.end_session(self.clock.wall())
        self.ledger.close()

    async def _next_tick(self) -> None:
        """Waits for a tick's length, but not where the search is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_TICK_S):
                while not self._may_leave():
                    self._news.clear()
                    await self._news.wait()

    def _may_leave(self) -> bool:
        if self._failure or self._abandoned:
            return True
        # A worker that still lives must hear that it is over, or it would wait for ever.
        return self.coordinator.over and not self.coordinator.workers

    def _exit_status(self) -> int:
        completed = bool(self.coordinator.count(TrialState.COMPLETED))
        if self.coordinator.early_end is EarlyEnd.ERROR:
            return 1
        if self.coordinator.work_left and self.coordinator.early_end is not EarlyEnd.BUDGET:
            return 75
        return 0 if completed else 1

    async def _settle(self) -> None:
        """Empties the outbox: writes what is to be written, asks and tells the sampler."""
        effects, self.coordinator.outbox = self.coordinator.outbox, []
        for effect in effects:
            self._perform(effect)
        await self._scribe.write(effects)

    def _show(self, effects: Sequence[Effect]) -> None:
        """What was just written is for all to see."""
        for projection in self._projections:
            projection.show(effects)
        changed = (e.attempt.record.state for e in effects if isinstance(e, StoreAttempt))
        # A trial that was handed out is no news for those who wait for one.
        if any(state is not TrialState.RUNNING for state in changed):
            self._notify()

    def _perform(self, effect: Effect) -> None:
        if isinstance(effect, AskSampler):
            pending = self.coordinator.pending
            self.keep_doing(self._ask(effect.trial_id, pending))
        elif isinstance(effect, TellSampler):
            self._thinking.submit(self._sampler.told, effect.record)

    async def _ask(self, trial_id: str, pending: Sequence[TrialRecord]) -> None:
        """The sampler thinks in its thread; its answer comes back as an event."""
        loop = asyncio.get_running_loop()
        try:
            answer, implementation = await loop.run_in_executor(
                self._thinking, self._propose, trial_id, pending
            )
        except Exception as error:
            name = self.run.request.sampler
            self.fail(TuneFleetError(f"sampler {name} failed at trial {trial_id}: {error!r}"))
            return
        await self.apply(lambda c: c.proposed(trial_id, answer, implementation))
        self._notify()

    def _propose(self, trial_id: str, pending: Sequence[TrialRecord]) -> tuple[Answer, str]:
        """The sampler's answer and what decided on it; a random point where a model fails."""
        try:
            answer = self._sampler.ask(trial_id, pending)
        except Exception as error:
            log.exception("the sampler failed at trial %s", trial_id)
            if not self._sampler.model_based:
                raise
            answer = self._sampler.fall_back(trial_id, error)
        return answer, self._sampler.implementation

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error:
            log.error("a part of the chief failed", exc_info=error)
            self.fail(TuneFleetError(f"a part of the chief failed: {error!r}"))

    def _notify(self) -> None:
        """Wakes those for whom there may be something."""
        self._news.set()
        for waiter in list(itertools.islice(self._waiters, self.coordinator.worth_asking)):
            del self._waiters[waiter]
            _wake(waiter)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _last_attempts(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """One record a trial: a sampler knows points, not attempts."""
    return list({record.trial_id: record for record in records}.values())
