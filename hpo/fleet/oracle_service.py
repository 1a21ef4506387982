"""KerasTuner's own service, answered from a coordinator."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc

from hpo.fleet import wire
from hpo.fleet.calls import Context, abort_if_lost, fence_of, known, sender
from hpo.fleet.chief import Chief
from hpo.protocol import Grant, Stop, Verdict
from hpo.trial import Report, TrialRecord

# An answer of "nothing just now" is held back this long: an idle worker asks once a second.
_IDLE_S = 1.0


class OracleService(wire.stubs.OracleServicer):  # type: ignore[misc]
    """KerasTuner's service. Its calls, unchanged, carry trials, reports and ends."""

    def __init__(self, chief: Chief) -> None:
        self._chief = chief

    async def CreateTrial(self, request: Any, context: Context) -> Any:
        """Hands out a trial, or says IDLE or STOPPED."""
        return await self.hand_out(*sender(context), context, wire.to_trial)

    async def hand_out(
        self,
        worker_id: str,
        incarnation: str,
        context: Context,
        to_message: Callable[[TrialRecord], Any],
    ) -> Any:
        """The answer to a worker that asks for a trial, held back for a while if there is none."""
        deadline = asyncio.get_running_loop().time() + _IDLE_S
        while True:
            answer = await known(
                context, self._chief.apply(lambda c: c.asked(worker_id, incarnation))
            )
            if isinstance(answer, Grant):
                has_checkpoint = self._chief.checkpoint_for(answer.attempt.record) is not None
                grant = wire.to_grant(answer.attempt, has_checkpoint).SerializeToString()
                context.set_trailing_metadata(((wire.GRANT, grant),))
                return wire.service.CreateTrialResponse(trial=to_message(answer.attempt.record))
            if isinstance(answer, Stop):
                context.set_trailing_metadata(((wire.STOP, answer.reason),))
                return wire.bare_trial(wire.types.STOPPED)
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                return wire.bare_trial(wire.types.IDLE)
            await self._chief.something_changed(left)

    async def UpdateTrial(self, request: Any, context: Context) -> Any:
        """Takes the metrics of a step; STOPPED in the answer ends the trial."""
        report = Report(int(request.step), dict(request.metrics))
        trial_id, fence = request.trial_id, fence_of(context)
        verdict = await self._chief.apply(lambda c: c.reported(trial_id, fence, report))
        await abort_if_lost(verdict, context)
        if verdict is Verdict.SUSPEND:
            context.set_trailing_metadata(((wire.SUSPEND, "1"),))
        status = wire.types.STOPPED if verdict is Verdict.STOP else wire.types.RUNNING
        # Without the point, which is what takes long to pack: who reports has it.
        trial = wire.types.Trial(trial_id=trial_id, status=status)
        return wire.service.UpdateTrialResponse(trial=trial)

    async def EndTrial(self, request: Any, context: Context) -> Any:
        """Ends an attempt."""
        completed = request.trial.status == wire.types.COMPLETED
        trial_id, fence = request.trial.trial_id, fence_of(context)
        verdict = await self._chief.apply(lambda c: c.ended(trial_id, fence, completed))
        await abort_if_lost(verdict, context)
        self._chief.forget_other_weights()
        self._chief.tidy_checkpoints()
        return wire.service.EndTrialResponse()

    async def GetTrial(self, request: Any, context: Context) -> Any:
        """A trial that is running."""
        for record in self._chief.coordinator.pending:
            if record.trial_id == request.trial_id:
                return wire.service.GetTrialResponse(trial=wire.to_trial(record))
        return await context.abort(grpc.StatusCode.NOT_FOUND, f"no open trial {request.trial_id!r}")

    async def GetBestTrials(self, request: Any, context: Context) -> Any:
        """The best trial so far; the others are in the ledger."""
        best = self._chief.coordinator.best
        trials = [wire.to_trial(best)] if best and request.num_trials else []
        return wire.service.GetBestTrialsResponse(trials=trials)
