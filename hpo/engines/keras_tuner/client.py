"""A worker's calls to the chief: repeated until the chief has answered."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from hpo.engines.keras_tuner import fleet_pb2, fleet_pb2_grpc, wire
from hpo.errors import PlaceError, RefusedError
from hpo.protocol import Verdict
from hpo.study import Study
from hpo.trial import Failure, Params, Report

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
class Terms:
    """What a worker learns when it joins: the study, and how every trial is to be run."""

    lease_s: float
    study: Study
    split_seed: int
    epochs: int | None
    train_examples: int | None


@dataclasses.dataclass(frozen=True)
class Granted:
    """A trial to run, under its fencing number."""

    trial_id: str
    attempt: int
    fence: int
    seed: int
    epochs: int | None
    params: Params


@dataclasses.dataclass(frozen=True)
class Stopped:
    """Leave: ``reason`` is "done" or "drained"."""

    reason: str


class ChiefClient:
    """The chief as one worker process sees it. Safe to use from several threads.

    Every call may be repeated after a lost answer: the chief answers the same again. Raises
    RefusedError where the chief refuses for good, UnknownError where the worker must join
    again, LostError where the attempt is no longer its own, and PlaceError where the chief
    was not heard of for an hour.
    """

    def __init__(self, address: str, token: str, worker_id: str, incarnation: str) -> None:
        self._address = address
        self._channel = grpc.insecure_channel(
            address,
            options=[
                # A chief that comes back is found within a second, not after two minutes.
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 1000),
                ("grpc.enable_http_proxy", 0),
            ],
        )
        self._oracle = wire.stubs.OracleStub(self._channel)
        self._fleet = fleet_pb2_grpc.FleetStub(self._channel)  # type: ignore[no-untyped-call]
        self._metadata = [(wire.AUTHORIZATION, wire.bearer(token))]
        if worker_id:
            self._metadata += [(wire.WORKER, worker_id), (wire.INCARNATION, incarnation)]
        self._closed = False

    def close(self) -> None:
        """Ends calls that are under way, and all later ones."""
        self._closed = True
        self._channel.close()

    def join(self, host: str, pid: int, device: str, study_digest: str) -> Terms:
        """Makes this process the worker of its id."""
        request = fleet_pb2.JoinRequest(
            host=host, pid=pid, device=device, study_digest=study_digest
        )
        reply = self._call(self._fleet.Join, request)
        return Terms(
            lease_s=reply.lease_s,
            study=Study.from_json(json.loads(reply.study)),
            split_seed=reply.split_seed,
            epochs=reply.epochs if reply.HasField("epochs") else None,
            train_examples=reply.train_examples if reply.HasField("train_examples") else None,
        )

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
            params=wire.to_params(reply.trial.hyperparameters),
        )

    def report(self, granted: Granted, report: Report) -> bool:
        """Sends the metrics of a step; answers whether to go on."""
        request = wire.service.UpdateTrialRequest(
            trial_id=granted.trial_id, metrics=report.metrics, step=report.step
        )
        reply = self._call(self._oracle.UpdateTrial, request, granted.fence)
        return bool(reply.trial.status != wire.types.STOPPED)

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
            return self._fleet.SendWeights(_chunks(granted.trial_id, path), **options)

        self._call(send, None, granted.fence, timeout_s=_WEIGHTS_S)

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

    def drain(self, immediate: bool, timeout_s: float = 10.0) -> None:
        """Asks the chief to end the search early; raises PlaceError if it cannot be reached."""
        request = fleet_pb2.DrainRequest(immediate=immediate)
        try:
            self._fleet.Drain(request, metadata=self._metadata, timeout=timeout_s)
        except grpc.RpcError as error:
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
                return method(request, metadata=metadata, timeout=timeout_s)
            except grpc.RpcError as error:
                self._raise_unless_repeatable(error)
                if time.monotonic() - started > PATIENCE_S:
                    raise PlaceError(
                        f"the chief at {self._address} was not heard of for an hour"
                    ) from error
                time.sleep(_PAUSE_S[min(failures, len(_PAUSE_S) - 1)])
                failures += 1

    def _raise_unless_repeatable(self, error: Any) -> None:
        if error.code() in _REFUSED:
            raise RefusedError(error.details()) from error
        if error.code() is grpc.StatusCode.ABORTED:
            raise LostError from error
        if error.code() is grpc.StatusCode.NOT_FOUND:
            raise UnknownError(error.details()) from error
        if self._closed:
            raise error


def _chunks(trial_id: str, path: pathlib.Path) -> Iterator[fleet_pb2.WeightsChunk]:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(wire.CHUNK_BYTES):
            digest.update(data)
            yield fleet_pb2.WeightsChunk(trial_id=trial_id, data=data)
    yield fleet_pb2.WeightsChunk(trial_id=trial_id, sha256=digest.hexdigest())
