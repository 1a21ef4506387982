"""The chief's server: both services on one port, behind the run's token."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from hpo.engines.keras_tuner import fleet_pb2_grpc, wire
from hpo.engines.keras_tuner.calls import Context
from hpo.engines.keras_tuner.chief import Chief
from hpo.engines.keras_tuner.fleet_service import FleetService
from hpo.engines.keras_tuner.oracle_service import OracleService
from hpo.errors import UsageError

log = logging.getLogger("tunefleet.chief")


async def start_server(chief: Chief, host: str, port: int) -> tuple[Any, str]:
    """A server that answers calls for ``chief``, and its address as ``host:port``.

    Raises UsageError where the port is in use.
    """
    server = grpc.aio.server(
        interceptors=[_OnlyWithToken(chief.run.token)],
        # By default two chiefs would share a port without a word.
        options=[("grpc.so_reuseport", 0)],
    )
    wire.stubs.add_OracleServicer_to_server(OracleService(chief), server)
    fleet_pb2_grpc.add_FleetServicer_to_server(FleetService(chief), server)  # type: ignore[no-untyped-call]
    name = f"[{host}]" if ":" in host else host
    try:
        bound = server.add_insecure_port(f"{name}:{port}")
    except RuntimeError as error:
        raise UsageError(
            f"port {port} on {host} is in use: give another --port, or none for a free one"
        ) from error
    await server.start()
    return server, f"{name}:{bound}"


class _OnlyWithToken(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Refuses every call that does not carry the run's token, before it is even parsed."""

    def __init__(self, token: str) -> None:
        self._expected = wire.bearer(token).encode()

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: Any
    ) -> Any:
        given = dict(details.invocation_metadata or ()).get(wire.AUTHORIZATION, "")
        text = given.encode() if isinstance(given, str) else given
        handler = await continuation(details)
        if handler is None or hmac.compare_digest(text, self._expected):
            return handler
        if handler.request_streaming:
            return grpc.stream_unary_rpc_method_handler(_refuse)
        return grpc.unary_unary_rpc_method_handler(_refuse)


async def _refuse(_: Any, context: Context) -> None:
    log.warning("refused a call from %s: no or a wrong token", context.peer())
    await context.abort(
        grpc.StatusCode.UNAUTHENTICATED,
        "the chief refused the token: use the token file of this run",
    )
