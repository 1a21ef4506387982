"""What every call to the chief carries, and the ways in which one is refused."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import grpc

from hpo.fleet import wire
from hpo.fleet.chief import Chief
from hpo.leases import ReplacedWorkerError, UnknownWorkerError
from hpo.protocol import Attempt, Verdict

# gRPC's context of a call has no type of its own.
Context = Any


def sender(context: Context) -> tuple[str, str]:
    """The worker's id and incarnation in a call's metadata."""
    metadata = dict(context.invocation_metadata() or ())
    return str(metadata.get(wire.WORKER, "")), str(metadata.get(wire.INCARNATION, ""))


def fence_of(context: Context) -> int:
    """The fencing number in a call's metadata; 0, which no attempt has, where it is none."""
    text = str(dict(context.invocation_metadata() or ()).get(wire.FENCE, ""))
    return int(text) if text.isdecimal() else 0


async def held(chief: Chief, trial_id: str, context: Context) -> Attempt:
    """The running attempt that a call is about; aborts the call if it is no longer held."""
    attempt = chief.coordinator.attempt_under(fence_of(context))
    if attempt is None or attempt.record.trial_id != trial_id:
        await abort_if_lost(Verdict.LOST, context)
    assert attempt is not None
    return attempt


async def abort_if_lost(verdict: Verdict, context: Context) -> None:
    if verdict is Verdict.LOST:
        await context.abort(grpc.StatusCode.ABORTED, "the trial is no longer this worker's")


async def known(context: Context, answer: Awaitable[Any]) -> Any:
    """``answer``, or an end of the call that tells the worker what it is to do."""
    try:
        return await answer
    except UnknownWorkerError:
        await context.abort(grpc.StatusCode.NOT_FOUND, "the chief does not know it: join again")
    except ReplacedWorkerError as error:
        await context.abort(
            grpc.StatusCode.PERMISSION_DENIED,
            f"a newer process has taken over the worker id {error}: "
            "give each worker an id of its own",
        )
