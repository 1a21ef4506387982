"""The chief's server: both services on one port, behind the run's token."""

from __future__ import annotations

import hmac
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from hpo import env
from hpo.engines.keras_tuner import fleet_pb2_grpc, wire
from hpo.engines.keras_tuner.calls import Context
from hpo.engines.keras_tuner.chief import Chief
from hpo.engines.keras_tuner.fleet_service import FleetService
from hpo.engines.keras_tuner.open_service import OpenOracleService
from hpo.engines.keras_tuner.oracle_service import OracleService
from hpo.errors import UsageError

log = logging.getLogger("tunefleet.chief")


async def start_server(chief: Chief, host: str, port: int) -> tuple[Any, str]:
    """A server that answers calls for ``chief``, and its address as ``host:port``.

    Raises UsageError where the port is in use.
    """
    is_open = bool(os.environ.get(env.INSECURE))
    server = grpc.aio.server(
        interceptors=[_OnlyWithToken(chief.run.token, is_open)],
        # By default two chiefs would share a port without a word.
        options=[("grpc.so_reuseport", 0)],
    )
    oracle = OpenOracleService(chief) if is_open else OracleService(chief)
    wire.stubs.add_OracleServicer_to_server(oracle, server)
    fleet_pb2_grpc.add_FleetServicer_to_server(FleetService(chief), server)  # type: ignore[no-untyped-call]
    name = f"[{host}]" if ":" in host else host
    try:
        bound = server.add_insecure_port(f"{name}:{port}")
    except RuntimeError as error:
        raise UsageError(
            f"port {port} on {host} is in use: give another --port, or none for a free one"
        ) from error
    await server.start()
    if isinstance(oracle, OpenOracleService):
        chief.keep_doing(oracle.watch())
    return server, f"{name}:{bound}"


class _OnlyWithToken(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Refuses every call that does not carry the run's token, before it is even parsed.

    With ``is_open`` KerasTuner's own service is spared: its workers know no token.
    """

    def __init__(self, token: str, is_open: bool) -> None:
        self._expected = wire.bearer(token).encode()
        self._spared = wire.ORACLE_PATH if is_open else None

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: Any
    ) -> Any:
        given = dict(details.invocation_metadata or ()).get(wire.AUTHORIZATION, "")
        text = given.encode() if isinstance(given, str) else given
        handler = await continuation(details)
        if self._spared and not text and details.method.startswith(self._spared):
            return handler
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
