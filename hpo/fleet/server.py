"""The chief's server: both services on one port, behind the run's token and, off loopback, TLS."""

from __future__ import annotations

import hmac
import os
import resource
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from hpo import address, env, tls, token_file
from hpo.fleet import fleet_pb2_grpc, wire
from hpo.fleet.calls import Context
from hpo.fleet.chief import Chief
from hpo.fleet.fleet_service import FleetService
from hpo.fleet.gate import Gate
from hpo.fleet.open_service import OpenOracleService
from hpo.fleet.oracle_service import OracleService
from hpo.fleet.refusals import Refusals
from hpo.token_file import Secret

_OPTIONS = [
    ("grpc.max_receive_message_length", wire.MESSAGE_BYTES),
    # Messages are short: to measure how much a connection could carry costs more than it gives.
    ("grpc.http2.bdp_probe", 0),
    # A worker may ask this often whether the connection still stands.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", wire.PING_MS // 2),
]


class Server:
    """What answers the calls of a chief's workers, at ``address`` as ``host:port``."""

    def __init__(self, grpc_server: Any, gate: Gate, refusals: Refusals, address: str) -> None:
        self.address = address
        self._grpc = grpc_server
        self._gate = gate
        self._refusals = refusals

    async def stop(self, grace: float) -> None:
        """Ends all calls, those under way after ``grace`` seconds."""
        await self._grpc.stop(grace)
        await self._gate.close()
        self._refusals.say_rest()


async def start_server(chief: Chief, host: str, port: int) -> Server:
    """A server for ``chief``; what opens it lies in the run's token file from then on.

    Raises UsageError where it cannot or should not serve there.
    """
    is_open = bool(os.environ.get(env.INSECURE))
    address.check(host, is_open)
    identity = None if address.is_loopback(host) else tls.identity(chief.run.folder)
    secret = Secret(chief.run.token, identity.certificate if identity else "")
    listeners = address.listen(host, port)
    _allow_many_connections()
    refusals = Refusals()
    gate = Gate(refusals, identity.context if identity else None)
    server = grpc.aio.server(
        interceptors=[_OnlyWithToken(secret.token, is_open, refusals, gate.peer_of)],
        options=_OPTIONS,
    )
    oracle = OpenOracleService(chief, gate.peer_of) if is_open else OracleService(chief)
    wire.stubs.add_OracleServicer_to_server(oracle, server)
    fleet_pb2_grpc.add_FleetServicer_to_server(FleetService(chief), server)  # type: ignore[no-untyped-call]
    server.add_insecure_port(gate.inside)
    await server.start()
    if secret != token_file.read(chief.run.token_file):
        token_file.write(chief.run.token_file, secret)
    gate.open(listeners)
    if isinstance(oracle, OpenOracleService):
        chief.keep_doing(oracle.watch())
    bound = listeners[0].getsockname()[1]
    return Server(server, gate, refusals, address.joined(address.from_elsewhere(host), bound))


def _allow_many_connections() -> None:
    """Each worker takes three file descriptors; many systems allow 1,024 unless asked."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class _OnlyWithToken(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Refuses every call that does not carry the run's token, before it is even received.

    With ``is_open`` KerasTuner's own service is spared: its workers know no token.
    """

    def __init__(
        self, token: str, is_open: bool, refusals: Refusals, peer_of: Callable[[str], str]
    ) -> None:
        self._expected = wire.bearer(token).encode()
        self._spared = wire.ORACLE_PATH if is_open else None
        self._refusals = refusals
        self._peer_of = peer_of

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: Any
    ) -> Any:
        given = dict(details.invocation_metadata or ()).get(wire.AUTHORIZATION, "")
        text = given.encode() if isinstance(given, str) else given
        spared = self._spared and not text and details.method.startswith(self._spared)
        if spared or hmac.compare_digest(text, self._expected):
            return self._received(await continuation(details))
        # A stream, whatever the call is: its handler runs before a message was received.
        return grpc.stream_unary_rpc_method_handler(self._refuse)

    async def _refuse(self, _: Any, context: Context) -> None:
        self._refusals.note(self._peer_of(context.peer()), "a call with no or a wrong token")
        await context.abort(
            grpc.StatusCode.UNAUTHENTICATED,
            "the chief refused the token: use the token file of this run",
        )

    def _received(self, handler: Any) -> Any:
        """``handler``, but a message that gRPC does not take is noted: it says so to nobody."""
        if handler is None or handler.request_streaming or handler.response_streaming:
            return handler

        async def receive(requests: Any, context: Context) -> Any:
            async for request in requests:
                return await handler.unary_unary(request, context)
            what = f"a call with no message or one above {wire.MESSAGE_BYTES} bytes"
            self._refusals.note(self._peer_of(context.peer()), what)
            return await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, what)

        return grpc.stream_unary_rpc_method_handler(
            receive, handler.request_deserializer, handler.response_serializer
        )
