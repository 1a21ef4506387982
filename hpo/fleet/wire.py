"""Names and conversions of the wire: metadata, values, KerasTuner's messages."""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from hpo.fleet import fleet_pb2
from hpo.keras_tuner_parts import messages
from hpo.protocol import Attempt, Verdict
from hpo.trial import Params, TrialRecord, TrialState, Value

AUTHORIZATION = "authorization"
WORKER = "tunefleet-worker"
INCARNATION = "tunefleet-incarnation"
FENCE = "tunefleet-fence"
GRANT = "tunefleet-grant-bin"
STOP = "tunefleet-stop"
SUSPEND = "tunefleet-suspend"

CHUNK_BYTES = 1 << 20
# No message is longer: the longest are chunks of weights.
MESSAGE_BYTES = 2 * CHUNK_BYTES
LOG_BYTES = 256 << 10
# How often an end asks whether a connection in use still stands: a cut says nothing.
PING_MS = 10_000

types, service, stubs = messages()
# What the path of every call of KerasTuner's own service begins with.
ORACLE_PATH = f"/{service.DESCRIPTOR.services_by_name['Oracle'].full_name}/"

_STATUS = {
    TrialState.WAITING: types.IDLE,
    TrialState.RUNNING: types.RUNNING,
    TrialState.COMPLETED: types.COMPLETED,
    TrialState.PRUNED: types.STOPPED,
    TrialState.FAILED: types.FAILED,
}


def bearer(token: str) -> str:
    """The value of the authorization metadata."""
    return f"Bearer {token}"


def to_value(value: Value) -> Any:
    """KerasTuner's message for one value, of its native type."""
    if isinstance(value, bool):
        return types.Value(boolean_value=value)
    if isinstance(value, int):
        return types.Value(int_value=value)
    if isinstance(value, float):
        return types.Value(float_value=value)
    return types.Value(string_value=value)


def to_hyperparameters(params: Mapping[str, Value]) -> Any:
    """KerasTuner's message for a point.

    It carries the values and no space: KerasTuner regroups a space by type on the wire, so
    that a child can come before its parent, and takes a model's own declarations anyway.
    """
    values = {name: to_value(value) for name, value in params.items()}
    return types.HyperParameters(values=types.HyperParameters.Values(values=values))


def to_params(hyperparameters: Any) -> Params:
    """The point in KerasTuner's message."""
    values = hyperparameters.values.values
    return {name: getattr(value, value.WhichOneof("kind")) for name, value in values.items()}


def to_trial(record: TrialRecord, status: Any = None) -> Any:
    """KerasTuner's message for a trial."""
    trial = types.Trial(
        trial_id=record.trial_id,
        hyperparameters=to_hyperparameters(record.params),
        status=_STATUS[record.state] if status is None else status,
    )
    if record.value is not None:
        trial.score.value, trial.score.step = record.value, record.best_step or 0
    return trial


def bare_trial(status: Any) -> Any:
    """An answer without a trial."""
    return service.CreateTrialResponse(trial=types.Trial(status=status))


def stopped_trial(trial_id: str) -> Any:
    """A trial that is over, whoever asks."""
    return types.Trial(trial_id=trial_id, status=types.STOPPED)


def to_stock_trial(record: TrialRecord) -> Any:
    """KerasTuner's message for a trial, with what its own workers look for among the values."""
    trial = to_trial(record)
    if record.epochs is not None:
        # The keys by which its Hyperband says how long to train.
        epochs = {"tuner/epochs": record.epochs, "tuner/initial_epoch": 0}
        trial.hyperparameters.MergeFrom(to_hyperparameters(epochs))
    return trial


def to_grant(attempt: Attempt, has_checkpoint: bool) -> fleet_pb2.Grant:
    """What KerasTuner's Trial has no place for."""
    record = attempt.record
    return fleet_pb2.Grant(
        trial_id=record.trial_id,
        attempt=record.attempt,
        fence=attempt.fence,
        seed=record.seed,
        epochs=record.epochs,
        has_checkpoint=has_checkpoint,
    )


_VERDICTS = {
    Verdict.GO_ON: fleet_pb2.GO_ON,
    Verdict.STOP: fleet_pb2.STOP,
    Verdict.LOST: fleet_pb2.LOST,
}


def to_verdict(verdict: Verdict) -> fleet_pb2.VerdictReply:
    """The message for a verdict."""
    return fleet_pb2.VerdictReply(verdict=_VERDICTS[verdict])


def from_verdict(reply: fleet_pb2.VerdictReply) -> Verdict:
    """The verdict in a message."""
    return Verdict(fleet_pb2.Verdict.Name(reply.verdict))


def chunks(trial_id: str, path: pathlib.Path, epoch: int = 0) -> Iterator[fleet_pb2.WeightsChunk]:
    """A file as it travels: pieces of it, then the checksum of the whole."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(CHUNK_BYTES):
            digest.update(data)
            yield fleet_pb2.WeightsChunk(trial_id=trial_id, data=data, epoch=epoch)
    yield fleet_pb2.WeightsChunk(trial_id=trial_id, sha256=digest.hexdigest(), epoch=epoch)
