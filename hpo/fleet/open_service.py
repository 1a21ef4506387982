"""KerasTuner's service for KerasTuner's own workers beside ours: no token, no fencing number.

A worker that says who it is gets the service as it is. Any other is a stock worker: it holds
its trial as long as its process lives, and at most as long as any trial may take. What it
says of a trial that it no longer holds is dropped and answered as if it had counted, since a
refusal would kill it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
from collections.abc import Callable
from typing import Any

from hpo.fleet import stock, wire
from hpo.fleet.calls import Context, sender
from hpo.fleet.chief import Chief
from hpo.fleet.oracle_service import OracleService
from hpo.hyperparameters import to_hyperparameters
from hpo.protocol import Attempt, WorkerInfo
from hpo.trial import Failure, Report

log = logging.getLogger("tunefleet.chief")

_LOOK_S = 0.5
# Where it runs and on what, it does not say.
_DEVICE = "not said"


class OpenOracleService(OracleService):
    """KerasTuner's service, open to whoever can reach it.

    ``peer_of`` gives the caller's ``host:port`` by gRPC's name for it.
    """

    def __init__(self, chief: Chief, peer_of: Callable[[str], str]) -> None:
        super().__init__(chief)
        self._peer_of = peer_of

    async def CreateTrial(self, request: Any, context: Context) -> Any:
        """Hands out a trial to whoever asks under an id that no other live process has."""
        if sender(context)[0]:
            return await super().CreateTrial(request, context)
        incarnation = await self._incarnation(context)
        if not await self._admit(request.tuner_id, incarnation):
            return wire.bare_trial(wire.types.STOPPED)
        return await self.hand_out(request.tuner_id, incarnation, context, wire.to_stock_trial)

    async def UpdateTrial(self, request: Any, context: Context) -> Any:
        """Takes the metrics of the best epoch, which KerasTuner counts from 0."""
        if sender(context)[0]:
            return await super().UpdateTrial(request, context)
        attempt = await self._held_by_peer(request.trial_id, context)
        if attempt is None:
            return wire.service.UpdateTrialResponse(trial=wire.stopped_trial(request.trial_id))
        report = Report(int(request.step) + 1, dict(request.metrics))
        # It says so once, when it has trained to the end.
        await self._chief.apply(
            lambda c: c.reported(request.trial_id, attempt.fence, report, final=True)
        )
        return wire.service.UpdateTrialResponse(trial=wire.to_stock_trial(attempt.record))

    async def EndTrial(self, request: Any, context: Context) -> Any:
        """Ends a trial; why one failed, KerasTuner's worker does not send."""
        if sender(context)[0]:
            return await super().EndTrial(request, context)
        trial_id = request.trial.trial_id
        attempt = await self._held_by_peer(trial_id, context)
        if attempt is None:
            return wire.service.EndTrialResponse()
        fence, completed = attempt.fence, request.trial.status == wire.types.COMPLETED
        if not completed:
            said = "KerasTuner's own worker does not send why a trial failed: see its output"
            await self._chief.apply(lambda c: c.explained(trial_id, fence, Failure.CODE, said))
        await self._chief.apply(lambda c: c.ended(trial_id, fence, completed))
        return wire.service.EndTrialResponse()

    async def GetSpace(self, request: Any, context: Context) -> Any:
        """The space, for a script that prints a summary of it."""
        hyperparameters = to_hyperparameters(self._chief.run.study.space, {})
        # KerasTuner's conditions print themselves on the way to a message.
        with contextlib.redirect_stdout(sys.stderr):
            message = hyperparameters.to_proto()
        return wire.service.GetSpaceResponse(hyperparameters=message)

    async def UpdateSpace(self, request: Any, context: Context) -> Any:
        """Acknowledged and left alone: the space is the study's own."""
        return wire.service.UpdateSpaceResponse()

    async def watch(self) -> None:
        """Renews, for ever, the leases of stock workers that live, and ends those of the dead."""
        while True:
            for info in self._chief.coordinator.workers:
                if stock.is_stock(info.incarnation):
                    await self._look_at(info)
            await asyncio.sleep(_LOOK_S)

    async def _incarnation(self, context: Context) -> str:
        """The process that calls."""
        return await asyncio.to_thread(stock.incarnation_of, self._peer_of(context.peer()))

    async def _look_at(self, info: WorkerInfo) -> None:
        lives = await asyncio.to_thread(stock.lives, info.incarnation)
        if lives:
            event = self._chief.coordinator.beat_of
        else:
            log.warning("worker %s, one of KerasTuner's own, has died", info.worker_id)
            event = self._chief.coordinator.died
        await self._chief.apply(lambda _: event(info))

    async def _admit(self, worker_id: str, incarnation: str) -> bool:
        """Makes a process the worker of its id, unless another that lives has that id."""
        for info in self._chief.coordinator.workers:
            if info.worker_id != worker_id:
                continue
            if info.incarnation == incarnation:
                return True
            if not stock.is_stock(info.incarnation) or stock.lives(info.incarnation):
                log.warning("sent away a second worker %s: the first still lives", worker_id)
                return False
        pid = stock.process_id(incarnation)
        info = WorkerInfo(worker_id, incarnation, socket.gethostname(), pid, _DEVICE)
        await self._chief.apply(lambda c: c.joined(info))
        log.info("worker %s, one of KerasTuner's own, joined (pid %d)", worker_id, pid)
        return True

    async def _held_by_peer(self, trial_id: str, context: Context) -> Attempt | None:
        """The running attempt at a trial, if the process that calls is the one that holds it."""
        incarnation = await self._incarnation(context)
        attempt = self._chief.coordinator.attempt_of(incarnation)
        if attempt and attempt.record.trial_id == trial_id:
            return attempt
        log.warning("dropped a late word on trial %s from %s", trial_id, incarnation)
        return None
