"""The workers of a search that Ray runs, as its coordinator sees them.

A worker is a place for one trial at a time; which actor fills it, Ray decides. Everything
here happens in the chief's event loop, and what is answered is durable.
"""

from __future__ import annotations

import dataclasses
import secrets
import socket
import time
from collections.abc import Iterator

from hpo.coordinator import Coordinator
from hpo.crew import worker_ids
from hpo.fleet.chief import Chief
from hpo.leases import UnknownWorkerError
from hpo.link import Outcome
from hpo.protocol import Attempt, Grant, Stop, Verdict, WorkerInfo
from hpo.trial import Failure, Report

# So long all wait for a sampler that thinks. Ray keeps one actor that has nothing to do; it
# ends a second one, and one that has yet to start where another can do its work.
_THINKING_S = 1.0
_IDLE_S = 0.25
# So long a pruned trial may take to end by itself, with what it has to say.
_END_S = 5.0


class OverError(Exception):
    """Nothing more will be handed out."""


@dataclasses.dataclass
class Seat:
    """An attempt in the hands of a worker.

    ``runs`` says whether its actor was heard of, ``ends_by`` until when a trial that was told
    to stop may take to do so.
    """

    worker: WorkerInfo
    attempt: Attempt
    runs: bool = False
    ends_by: float = 0.0

    @property
    def trial_id(self) -> str:
        """The trial's own id, which is not Ray's."""
        return self.attempt.record.trial_id

    @property
    def fence(self) -> int:
        """The number under which the attempt was handed out."""
        return self.attempt.fence


class Desk:
    """Takes trials for as many workers as are wanted and have room, and tells how they go.

    Keys are Ray's ids.
    """

    def __init__(self, chief: Chief, device: str) -> None:
        self.closed = False
        self._chief = chief
        # What a worker runs on, until its actor has said which.
        self._device = device
        self._idle: dict[str, WorkerInfo] = {}
        self._seats: dict[str, Seat] = {}

    async def open(self) -> None:
        """Those who worked for an earlier leader died with it."""
        for worker in self._chief.coordinator.workers:
            await self._chief.apply(lambda c, worker=worker: c.died(worker))  # type: ignore[misc]

    async def order(self, ray_id: str) -> Attempt | None:
        """An attempt to run; None if there is none just now. Raises OverError at the end.

        Where nothing runs either it waits, since Ray has nothing else to do.
        """
        patient_until, asked_again = time.monotonic() + _THINKING_S, False
        while not self.closed:
            if attempt := await self._ask_around(ray_id):
                return attempt
            thinking = self._chief.coordinator.thinking and time.monotonic() < patient_until
            if thinking or not self._seats:
                await self._chief.something_changed(_IDLE_S)
            elif asked_again:
                return None
            # A sampler may have answered while the worker's question was being noted.
            asked_again = not thinking
        raise OverError

    async def heard(self, ray_id: str, worker: WorkerInfo) -> bool:
        """The attempt's actor lives, as ``worker``; False where the attempt is to end."""
        seat = self._seats[ray_id]
        seat.runs = True
        if not self._beat(seat):
            return time.monotonic() < seat.ends_by
        if worker != seat.worker:
            seat.worker = worker
            await self._chief.apply(lambda c: c.moved(worker))
        return True

    async def reported(self, ray_id: str, report: Report) -> Verdict:
        """Metrics of one step."""
        seat = self._seats[ray_id]
        verdict = await self._chief.apply(lambda c: c.reported(seat.trial_id, seat.fence, report))
        if verdict is Verdict.STOP:
            seat.ends_by = seat.ends_by or time.monotonic() + _END_S
        return verdict

    async def resumed(self, ray_id: str, epoch: int) -> None:
        """The attempt goes on after ``epoch`` of the one before."""
        seat = self._seats[ray_id]
        await self._chief.apply(lambda c: c.resumed(seat.trial_id, seat.fence, epoch))

    async def ended(self, ray_id: str, outcome: Outcome) -> None:
        """The attempt has ended by itself."""
        seat = self._seats[ray_id]
        failure, error = outcome.failure, outcome.error or ""
        if outcome.suspended:
            failure, error = Failure.PREEMPTED, "the trial was saved and given back"

        def end(coordinator: Coordinator) -> None:
            if failure:
                coordinator.explained(seat.trial_id, seat.fence, failure, error)
            coordinator.ended(seat.trial_id, seat.fence, completed=failure is None)

        await self._chief.apply(end)
        self._chief.forget_other_weights()
        self._chief.tidy_checkpoints()
        self.free(ray_id)

    async def died(self, ray_id: str) -> None:
        """The attempt's actor is gone, or its host."""
        seat = self._seats.pop(ray_id, None)
        if seat:
            await self._chief.apply(lambda c: c.died(seat.worker))

    def free(self, ray_id: str) -> None:
        """The attempt is no longer its worker's, who may have another."""
        seat = self._seats.pop(ray_id, None)
        if seat:
            self._idle[seat.worker.worker_id] = seat.worker

    def seat(self, ray_id: str) -> Seat | None:
        """The attempt that Ray runs under this id."""
        return self._seats.get(ray_id)

    async def look(self, room: int | None) -> list[str]:
        """Answers for those whose actors have yet to start; the attempts that are to end.

        ``room`` is how many workers Ray has room for now; None: for any number.
        """
        self._chief.room = room
        waiting = [seat for seat in self._seats.values() if not seat.runs]
        for seat in waiting:
            self._beat(seat)
        now = time.monotonic()
        over = {key: seat for key, seat in self._seats.items() if not self._holds(seat)}
        return [key for key, seat in over.items() if seat.ends_by < now]

    async def close(self) -> None:
        """Everybody leaves; what still runs is put back."""
        self.closed = True
        for seat in self._seats.values():
            self._idle[seat.worker.worker_id] = seat.worker
        self._seats.clear()
        for worker in list(self._idle.values()):
            await self._leave(worker)

    async def _ask_around(self, ray_id: str) -> Attempt | None:
        """Each worker with nothing to do asks for a trial, until one gets it."""
        over = False
        for worker_id in list(self._places()):
            worker = self._idle.get(worker_id) or await self._join(worker_id)
            try:
                answer = await self._chief.apply(
                    lambda c, w=worker: c.asked(w.worker_id, w.incarnation)  # type: ignore[misc]
                )
            except UnknownWorkerError:
                # It was not heard of for a whole lease, since Ray stood still.
                del self._idle[worker_id]
                continue
            if isinstance(answer, Grant):
                self._seats[ray_id] = Seat(self._idle.pop(worker_id), answer.attempt)
                return answer.attempt
            if isinstance(answer, Stop):
                await self._leave(worker)
                over = over or answer.reason != "dismissed"
        if over:
            raise OverError
        return None

    def _places(self) -> Iterator[str]:
        """The ids of the workers that may ask: those who are here, and who else is wanted."""
        taken = {seat.worker.worker_id for seat in self._seats.values()}
        wanted = worker_ids(self._chief.coordinator.crew.size)
        yield from (each for each in self._idle if each not in wanted)
        # The others have no room, as long as no host joins.
        yield from (each for each in wanted[: self._chief.room] if each not in taken)

    async def _join(self, worker_id: str) -> WorkerInfo:
        incarnation = secrets.token_hex(8)
        # Which process it is, its actor will say.
        worker = WorkerInfo(worker_id, incarnation, socket.gethostname(), 0, self._device)
        await self._chief.apply(lambda c: c.joined(worker))
        self._idle[worker_id] = worker
        return worker

    async def _leave(self, worker: WorkerInfo) -> None:
        del self._idle[worker.worker_id]
        try:
            await self._chief.apply(lambda c: c.left(worker.worker_id, worker.incarnation))
        except UnknownWorkerError:
            return

    def _holds(self, seat: Seat) -> bool:
        return self._chief.coordinator.attempt_under(seat.fence) is not None

    def _beat(self, seat: Seat) -> bool:
        """Renews the worker's lease; whether it still holds the attempt."""
        worker, fence = seat.worker, seat.fence if self._holds(seat) else 0
        try:
            verdict = self._chief.coordinator.beat(worker.worker_id, worker.incarnation, fence)
        except UnknownWorkerError:
            return False
        return bool(fence) and verdict is Verdict.GO_ON
