"""The second service: leases, failures, weights, logs and the end of a search (fleet.proto)."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc

from hpo.coordinator import Phase
from hpo.fleet import fleet_pb2, fleet_pb2_grpc, wire
from hpo.fleet.calls import Context, abort_if_lost, fence_of, held, known, sender
from hpo.fleet.chief import Chief
from hpo.precision import in_record
from hpo.protocol import Verdict, WorkerInfo
from hpo.trial import Failure
from hpo.weights import Incoming

log = logging.getLogger("tunefleet.chief")


class FleetService(fleet_pb2_grpc.FleetServicer):
    """Leases, failures, weights, logs and the end of a search; see fleet.proto."""

    def __init__(self, chief: Chief) -> None:
        self._chief = chief

    async def Join(self, request: fleet_pb2.JoinRequest, context: Context) -> Any:
        """Makes a process the worker of its id, if it has the same study."""
        run = self._chief.run
        if request.study_digest != run.study.digest:
            await context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"this worker has another version of study {run.study.name}: "
                "give it the file that the run began with",
            )
        worker_id, incarnation = sender(context)
        device = in_record(request.device, run.settings.get("precision"))
        info = WorkerInfo(worker_id, incarnation, request.host, request.pid, device)
        await self._chief.apply(lambda c: c.joined(info))
        log.info("worker %s joined from %s (pid %d)", worker_id, request.host, request.pid)
        terms = self._chief.terms
        return fleet_pb2.JoinReply(
            lease_s=run.lease_s,
            study=json.dumps(terms.study.to_json()),
            split_seed=terms.split_seed,
            epochs=terms.epochs,
            train_examples=terms.train_examples,
            checkpoint_epochs=terms.schedule.epochs,
            checkpoint_s=terms.schedule.seconds,
            checkpoint_last=terms.schedule.last,
            settings=terms.settings,
            trial_timeout_s=run.rules.trial_timeout_s,
        )

    async def Beat(self, request: fleet_pb2.BeatRequest, context: Context) -> Any:
        """Renews a lease."""
        worker_id, incarnation = sender(context)

        async def beat() -> Verdict:
            # Nothing of it is written, so it need not wait for what others have changed.
            return self._chief.coordinator.beat(worker_id, incarnation, fence_of(context))

        return wire.to_verdict(await known(context, beat()))

    async def Explain(self, request: fleet_pb2.ExplainRequest, context: Context) -> Any:
        """Notes why an attempt is about to end as failed."""
        try:
            failure = Failure(request.failure)
        except ValueError as unknown:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(unknown))
        fence, error = fence_of(context), request.error
        verdict = await self._chief.apply(
            lambda c: c.explained(request.trial_id, fence, failure, error)
        )
        return wire.to_verdict(verdict)

    async def OfferWeights(self, request: fleet_pb2.OfferRequest, context: Context) -> Any:
        """Whether the weights would be the best ones."""
        return fleet_pb2.OfferReply(wanted=self._chief.wants_weights(request.value))

    async def SendWeights(
        self, chunks: AsyncIterator[fleet_pb2.WeightsChunk], context: Context
    ) -> Any:
        """Receives a file of weights; it counts once its checksum fits."""
        await self._receive(
            chunks, context, lambda chunk: self._chief.weights.receive(chunk.trial_id)
        )
        return wire.to_verdict(Verdict.GO_ON)

    async def SendCheckpoint(
        self, chunks: AsyncIterator[fleet_pb2.WeightsChunk], context: Context
    ) -> Any:
        """Receives a checkpoint; the trial's one before goes."""
        store = self._chief.checkpoints
        await self._receive(
            chunks, context, lambda chunk: store.receive(chunk.trial_id, chunk.epoch)
        )
        self._chief.tidy_checkpoints()
        return wire.to_verdict(Verdict.GO_ON)

    async def FetchCheckpoint(
        self, request: fleet_pb2.FetchRequest, context: Context
    ) -> AsyncIterator[fleet_pb2.WeightsChunk]:
        """Sends the checkpoint that a trial goes on from, if it is still there."""
        attempt = await held(self._chief, request.trial_id, context)
        path = self._chief.checkpoint_for(attempt.record)
        # Opened at once: it may be replaced by a newer one while it travels.
        if path:
            for chunk in wire.chunks(request.trial_id, path):
                yield chunk

    async def Resume(self, request: fleet_pb2.ResumeRequest, context: Context) -> Any:
        """Counts what the attempt before had reported for the one that goes on from it."""
        fence = fence_of(context)
        verdict = await self._chief.apply(
            lambda c: c.resumed(request.trial_id, fence, request.epoch)
        )
        return wire.to_verdict(verdict)

    async def _receive(
        self,
        chunks: AsyncIterator[fleet_pb2.WeightsChunk],
        context: Context,
        receive: Callable[[fleet_pb2.WeightsChunk], Incoming],
    ) -> None:
        """Takes a file in; aborts the call unless it came whole, from who holds the trial."""
        incoming = None
        try:
            async for chunk in chunks:
                if incoming is None:
                    await held(self._chief, chunk.trial_id, context)
                    incoming = receive(chunk)
                if chunk.sha256:
                    whole = await asyncio.to_thread(incoming.finish, chunk.sha256)
                    incoming = None if whole else incoming
                    if whole:
                        return
                else:
                    await asyncio.to_thread(incoming.write, chunk.data)
        finally:
            if incoming is not None:
                incoming.discard()
        await context.abort(grpc.StatusCode.DATA_LOSS, "the file came damaged: send it again")

    async def SendLog(self, request: fleet_pb2.LogRequest, context: Context) -> Any:
        """Keeps the end of a trial's log."""
        # A trial that was pruned has ended already.
        number = self._chief.coordinator.number_of(request.trial_id, fence_of(context))
        if number is None:
            return await abort_if_lost(Verdict.LOST, context)
        path = self._chief.run.trial_log(request.trial_id, number)
        await asyncio.to_thread(path.write_bytes, request.text[-wire.LOG_BYTES :])
        return wire.to_verdict(Verdict.GO_ON)

    async def Leave(self, request: fleet_pb2.LeaveRequest, context: Context) -> Any:
        """Takes a worker off the list."""
        worker_id, incarnation = sender(context)
        await known(context, self._chief.apply(lambda c: c.left(worker_id, incarnation)))
        log.info("worker %s left", worker_id)
        return fleet_pb2.LeaveReply()

    async def Drain(self, request: fleet_pb2.DrainRequest, context: Context) -> Any:
        """Ends the search early."""
        log.info("draining%s", ", at once" if request.immediate else "")
        await self._chief.apply(lambda c: c.drain(request.immediate, request.suspend))
        return fleet_pb2.DrainReply()

    async def Scale(self, request: fleet_pb2.ScaleRequest, context: Context) -> Any:
        """Wants another number of workers."""
        if request.workers < 1:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "at least one worker is needed")
        coordinator = self._chief.coordinator
        if coordinator.phase is Phase.DRAINING or coordinator.over:
            await context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"run {self._chief.run.id} is about to end: see `launch.py status`",
            )
        await self._chief.apply(lambda c: c.scaled(request.workers))
        log.info("%d workers are wanted", request.workers)
        return fleet_pb2.ScaleReply(room=self._chief.room)
