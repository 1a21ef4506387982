"""A worker's calls to the chief: repeated until the chief has answered."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from hpo.errors import PlaceError, RefusedError
from hpo.fleet import fleet_pb2, fleet_pb2_grpc, wire
from hpo.fleet.channel import open_channel, wrong_end
from hpo.protocol import Verdict
from hpo.run import Run
from hpo.schedule import Schedule
from hpo.study import Study
from hpo.terms import Task, Terms
from hpo.token_file import read
from hpo.trial import Answer, Failure, Report
from hpo.weights import Incoming

# KerasTuner's workers wait for their chief this long; so do ours.
PATIENCE_S = 3600.0
_CALL_S = 20.0
_WEIGHTS_S = 600.0
_PAUSE_S = (0.1, 0.2, 0.5, 1.0, 2.0)
_REFUSED = (
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNIMPLEMENTED,
)


class LostError(Exception):
    """The attempt is no longer this worker's: end the trial and forget it."""


class UnknownError(Exception):
    """The chief does not know this worker (any more): join again."""


@dataclasses.dataclass(frozen=True)
class Joined:
    """What a worker learns when it joins: how every trial is to be run, and the two limits."""

    terms: Terms
    lease_s: float
    trial_timeout_s: float


@dataclasses.dataclass(frozen=True)
class Granted(Task):
    """A trial to run, under its fencing number."""

    fence: int


@dataclasses.dataclass(frozen=True)
class Stopped:
    """Leave: ``reason`` is "done", "drained" or "dismissed"."""

    reason: str


class ChiefClient:
    """The chief as one worker process sees it. Safe to use from several threads.

    Every call may be repeated after a lost answer: the chief answers the same again. Raises
    RefusedError where the chief refuses for good, UnknownError where the worker must join
    again, LostError where the attempt is no longer its own, and PlaceError where the chief
    was not heard of for an hour.
    """

    def __init__(
        self,
        address: str,
        token: str,
        worker_id: str,
        incarnation: str,
        certificates: str = "",
    ) -> None:
        self._address = address
        self._channel = open_channel(address, certificates)
        self._oracle = wire.stubs.OracleStub(self._channel)
        self._fleet = fleet_pb2_grpc.FleetStub(self._channel)  # type: ignore[no-untyped-call]
        self._metadata = [(wire.AUTHORIZATION, wire.bearer(token))]
        if worker_id:
            self._metadata += [(wire.WORKER, worker_id), (wire.INCARNATION, incarnation)]
        self._closed = False
        self._acquainted = False
        # On the monotonic clock: after that no call is repeated.
        self.give_up_at = math.inf

    def close(self) -> None:
        """Ends calls that are under way, and all later ones."""
        self._closed = True
        self._channel.close()

    def join(self, host: str, pid: int, device: str, study_digest: str) -> Joined:
        """Makes this process the worker of its id."""
        request = fleet_pb2.JoinRequest(
            host=host, pid=pid, device=device, study_digest=study_digest
        )
        reply = self._call(self._fleet.Join, request)
        terms = Terms(
            study=Study.from_json(json.loads(reply.study)),
            split_seed=reply.split_seed,
            epochs=reply.epochs if reply.HasField("epochs") else None,
            train_examples=reply.train_examples if reply.HasField("train_examples") else None,
            schedule=Schedule(
                epochs=reply.checkpoint_epochs if reply.HasField("checkpoint_epochs") else None,
                seconds=reply.checkpoint_s if reply.HasField("checkpoint_s") else None,
                last=reply.checkpoint_last,
            ),
            settings=dict(reply.settings),
        )
        limit_s = reply.trial_timeout_s if reply.HasField("trial_timeout_s") else math.inf
        return Joined(terms, reply.lease_s, limit_s)

    def create_trial(self, worker_id: str) -> Granted | Stopped | None:
        """A trial to run; None where there is none just now (the chief held the answer back)."""
        request = wire.service.CreateTrialRequest(tuner_id=worker_id)
        reply, call = self._call(self._oracle.CreateTrial.with_call, request)
        trailing = {item.key: item.value for item in call.trailing_metadata() or ()}
        if wire.STOP in trailing:
            return Stopped(str(trailing[wire.STOP]))
        if wire.GRANT not in trailing:
            return None
        grant = fleet_pb2.Grant.FromString(trailing[wire.GRANT])
        return Granted(
            trial_id=grant.trial_id,
            attempt=grant.attempt,
            fence=grant.fence,
            seed=grant.seed,
            epochs=grant.epochs if grant.HasField("epochs") else None,
            has_checkpoint=grant.has_checkpoint,
            params=wire.to_params(reply.trial.hyperparameters),
        )

    def report(self, granted: Granted, report: Report) -> Answer:
        """Sends the metrics of a step; answers whether to go on."""
        request = wire.service.UpdateTrialRequest(
            trial_id=granted.trial_id, metrics=report.metrics, step=report.step
        )
        reply, call = self._call(self._oracle.UpdateTrial.with_call, request, granted.fence)
        if reply.trial.status == wire.types.STOPPED:
            return Answer.STOP
        trailing = {item.key for item in call.trailing_metadata() or ()}
        return Answer.SUSPEND if wire.SUSPEND in trailing else Answer.GO_ON

    def explain(self, granted: Granted, failure: Failure, error: str) -> None:
        """Says why the attempt is about to end as failed."""
        request = fleet_pb2.ExplainRequest(
            trial_id=granted.trial_id, failure=failure.value, error=error[-wire.LOG_BYTES :]
        )
        self._call(self._fleet.Explain, request, granted.fence)

    def end(self, granted: Granted, completed: bool) -> None:
        """Ends the attempt."""
        status = wire.types.COMPLETED if completed else wire.types.FAILED
        trial = wire.types.Trial(trial_id=granted.trial_id, status=status)
        request = wire.service.EndTrialRequest(trial=trial)
        self._call(self._oracle.EndTrial, request, granted.fence)

    def wants_weights(self, granted: Granted, value: float) -> bool:
        """Whether the chief wants the weights of a trial worth ``value``."""
        request = fleet_pb2.OfferRequest(trial_id=granted.trial_id, value=value)
        return bool(self._call(self._fleet.OfferWeights, request, granted.fence).wanted)

    def send_weights(self, granted: Granted, path: pathlib.Path) -> None:
        """Sends a file of weights in chunks, with a checksum over all of it."""

        def send(_: None, **options: Any) -> Any:
            return self._fleet.SendWeights(wire.chunks(granted.trial_id, path), **options)

        self._call(send, None, granted.fence, timeout_s=_WEIGHTS_S)

    def send_checkpoint(self, granted: Granted, path: pathlib.Path, epoch: int) -> None:
        """Sends a checkpoint, as weights are sent."""

        def send(_: None, **options: Any) -> Any:
            chunks = wire.chunks(granted.trial_id, path, epoch)
            return self._fleet.SendCheckpoint(chunks, **options)

        self._call(send, None, granted.fence, timeout_s=_WEIGHTS_S)

    def fetch_checkpoint(self, granted: Granted, path: pathlib.Path) -> bool:
        """Writes the checkpoint to go on from to ``path``; False where it is gone."""

        def fetch(request: Any, **options: Any) -> bool:
            incoming = Incoming(path)
            try:
                for chunk in self._fleet.FetchCheckpoint(request, **options):
                    if chunk.sha256:
                        return incoming.finish(chunk.sha256)
                    incoming.write(chunk.data)
            finally:
                incoming.discard()
            return False

        request = fleet_pb2.FetchRequest(trial_id=granted.trial_id)
        return bool(self._call(fetch, request, granted.fence, timeout_s=_WEIGHTS_S))

    def resume(self, granted: Granted, epoch: int) -> None:
        """Says that the attempt goes on after ``epoch`` of the one before."""
        request = fleet_pb2.ResumeRequest(trial_id=granted.trial_id, epoch=epoch)
        self._call(self._fleet.Resume, request, granted.fence)

    def send_log(self, granted: Granted, text: bytes) -> None:
        """Sends the end of the trial's log."""
        request = fleet_pb2.LogRequest(trial_id=granted.trial_id, text=text[-wire.LOG_BYTES :])
        self._call(self._fleet.SendLog, request, granted.fence)

    def beat(self, fence: int) -> Verdict:
        """Renews the lease once; raises grpc.RpcError at once if the chief does not answer."""
        metadata = [*self._metadata, (wire.FENCE, str(fence))]
        reply = self._fleet.Beat(fleet_pb2.BeatRequest(), metadata=metadata, timeout=_CALL_S)
        return wire.from_verdict(reply)

    def leave(self) -> None:
        """Says goodbye, if the chief is still there to hear it."""
        with contextlib.suppress(grpc.RpcError):
            self._fleet.Leave(fleet_pb2.LeaveRequest(), metadata=self._metadata, timeout=5.0)

    def drain(self, immediate: bool, suspend: bool = False, timeout_s: float = 10.0) -> None:
        """Asks the chief to end the search early; raises PlaceError if it cannot be reached."""
        self._call_once(
            self._fleet.Drain,
            fleet_pb2.DrainRequest(immediate=immediate, suspend=suspend),
            timeout_s,
        )

    def scale(self, workers: int, timeout_s: float = 10.0) -> int | None:
        """Wants so many workers from now on; raises as :meth:`drain`, or RefusedError.

        Answers how many workers there is room for; None: for any number.
        """
        request = fleet_pb2.ScaleRequest(workers=workers)
        reply = self._call_once(self._fleet.Scale, request, timeout_s)
        return reply.room if reply.HasField("room") else None

    def _call_once(self, method: Callable[..., Any], request: Any, timeout_s: float) -> Any:
        """One call that a person waits for: not repeated."""
        try:
            return method(request, metadata=self._metadata, timeout=timeout_s)
        except grpc.RpcError as error:
            if error.code() in _REFUSED:
                raise RefusedError(error.details() or "the chief refused") from error
            raise PlaceError(
                f"the chief at {self._address} does not answer ({error.code().name}): "
                "see its log with `launch.py logs`"
            ) from error

    def _call(
        self,
        method: Callable[..., Any],
        request: Any,
        fence: int | None = None,
        timeout_s: float = _CALL_S,
    ) -> Any:
        """One call, again and again until the chief answers."""
        metadata = list(self._metadata)
        if fence is not None:
            metadata.append((wire.FENCE, str(fence)))
        started, failures = time.monotonic(), 0
        while True:
            try:
                answer = method(request, metadata=metadata, timeout=timeout_s)
            except grpc.RpcError as error:
                self._raise_unless_repeatable(error)
                now = time.monotonic()
                if now > min(started + PATIENCE_S, self.give_up_at):
                    raise PlaceError(
                        f"the chief at {self._address} was not heard of for {now - started:.0f} s"
                    ) from error
                time.sleep(_PAUSE_S[min(failures, len(_PAUSE_S) - 1)])
                failures += 1
            else:
                self._acquainted = True
                return answer

    def _raise_unless_repeatable(self, error: Any) -> None:
        # Later it may be that another program has the address until the chief is back.
        if not self._acquainted and (why := wrong_end(error)):
            raise RefusedError(
                f"who answers at {self._address} is not this run's chief: {why}: "
                f"copy the run's token file again, and check the address"
            ) from error
        if error.code() in _REFUSED:
            raise RefusedError(error.details()) from error
        if error.code() is grpc.StatusCode.ABORTED:
            raise LostError from error
        if error.code() is grpc.StatusCode.NOT_FOUND:
            raise UnknownError(error.details()) from error
        if self._closed:
            raise error


@contextlib.contextmanager
def calling(run: Run, address: str) -> Iterator[ChiefClient]:
    """The chief as somebody sees it who is none of its workers."""
    secret = read(run.token_file)
    client = ChiefClient(address, secret.token, "", "", secret.certificates)
    try:
        yield client
    finally:
        client.close()
