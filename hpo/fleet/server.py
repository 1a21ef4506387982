"""The chief's server: both services on one port, behind the run's token and, off loopback, TLS."""

from __future__ import annotations

import contextlib
import hmac
import logging
import os
import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import grpc
import grpc.aio

from hpo import address, env, tls, token_file
from hpo.errors import TuneFleetError
from hpo.fleet import fleet_pb2_grpc, wire
from hpo.fleet.calls import Context
from hpo.fleet.chief import Chief
from hpo.fleet.fleet_service import FleetService
from hpo.fleet.gate import Gate
from hpo.fleet.open_service import OpenOracleService
from hpo.fleet.oracle_service import OracleService
from hpo.fleet.refusals import Refusals
from hpo.token_file import Secret

log = logging.getLogger("tunefleet.chief")

# How long the message of a call may be on its way before the log says that none came.
_MESSAGE_S = 3.0
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
    server = grpc.aio.server(options=_OPTIONS)
    services = _OnlyWithToken(secret.token, is_open, refusals, gate.peer_of, chief.fail)
    server.add_generic_rpc_handlers((services,))
    oracle = OpenOracleService(chief, gate.peer_of) if is_open else OracleService(chief)
    wire.stubs.add_OracleServicer_to_server(oracle, services)
    fleet_pb2_grpc.add_FleetServicer_to_server(FleetService(chief), services)  # type: ignore[no-untyped-call]
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


class _OnlyWithToken(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """Finds the handler of a call that carries the run's token, before its message is received.

    With ``is_open`` KerasTuner's own service is spared: its workers know no token. What a call
    raises goes to ``failed`` as well: its worker would ask again and again.

    This is a handler that holds the services' own, and no interceptor: gRPC would run that as one
    more coroutine at each call.
    """

    def __init__(
        self,
        token: str,
        is_open: bool,
        refusals: Refusals,
        peer_of: Callable[[str], str],
        failed: Callable[[TuneFleetError], None],
    ) -> None:
        self._expected = wire.bearer(token).encode()
        self._spared = wire.ORACLE_PATH if is_open else None
        self._refusals = refusals
        self._peer_of = peer_of
        self._failed = failed
        self._handlers: list[Any] = []
        # Calls whose message has yet to come: until when, and whose they are.
        self._awaited: dict[int, tuple[float, str]] = {}
        self._calls = 0

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        """What gRPC's generated code calls to add a service to a server."""
        self._handlers += handlers

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """The same methods once more, as gRPC's newer code gives them."""

    def service(self, handler_call_details: Any) -> Any:
        details = handler_call_details
        given = dict(details.invocation_metadata or ()).get(wire.AUTHORIZATION, "")
        text = given.encode() if isinstance(given, str) else given
        spared = self._spared and not text and details.method.startswith(self._spared)
        if spared or hmac.compare_digest(text, self._expected):
            return self._watched(details)
        # A stream, whatever the call is: its handler runs before a message was received.
        return grpc.stream_unary_rpc_method_handler(self._refuse)

    def _watched(self, details: Any) -> Any:
        """The handler of a call, which is noted if it gets no message that gRPC takes.

        Such a call gRPC refuses by itself, and tells nobody here.
        """
        self._note_overdue()
        found = (handler.service(details) for handler in self._handlers)
        handler = next(filter(None, found), None)
        if handler is None:
            return None
        if handler.request_streaming or handler.response_streaming:
            return self._blamed_stream(details.method, handler)
        self._calls += 1
        number, sender = self._calls, dict(details.invocation_metadata).get(wire.WORKER)
        self._awaited[number] = (time.monotonic() + _MESSAGE_S, str(sender or "a caller"))

        async def behave(request: Any, context: Context) -> Any:
            self._awaited.pop(number, None)
            with self._blamed(details.method):
                return await handler.unary_unary(request, context)

        return grpc.unary_unary_rpc_method_handler(
            behave, handler.request_deserializer, handler.response_serializer
        )

    def _blamed_stream(self, method: str, handler: Any) -> Any:
        """The same handler of a stream, in whichever direction that goes."""

        async def receive(requests: Any, context: Context) -> Any:
            with self._blamed(method):
                return await handler.stream_unary(requests, context)

        async def send(request: Any, context: Context) -> Any:
            with self._blamed(method):
                async for part in handler.unary_stream(request, context):
                    yield part

        return handler._replace(
            stream_unary=receive if handler.stream_unary else None,
            unary_stream=send if handler.unary_stream else None,
        )

    @contextlib.contextmanager
    def _blamed(self, method: str) -> Iterator[None]:
        """What a call of ``method`` raises is a failure of the chief's."""
        try:
            yield
        except grpc.aio.BaseError:
            # An answer, as it was meant, or a caller that is gone.
            raise
        except TuneFleetError as error:
            self._failed(error)
            raise
        except Exception as error:
            log.error("%s failed", method, exc_info=error)
            what = f"the chief failed at {method}: {type(error).__name__}: {error}"
            self._failed(TuneFleetError(what))
            raise

    def _note_overdue(self) -> None:
        now = time.monotonic()
        while self._awaited:
            number, (deadline, sender) = next(iter(self._awaited.items()))
            if deadline > now:
                return
            del self._awaited[number]
            what = f"a call with no message or one above {wire.MESSAGE_BYTES} bytes"
            self._refusals.note(f"{sender}, with the token", what)

    async def _refuse(self, _: Any, context: Context) -> None:
        self._refusals.note(self._peer_of(context.peer()), "a call with no or a wrong token")
        await context.abort(
            grpc.StatusCode.UNAUTHENTICATED,
            "the chief refused the token: use the token file of this run",
        )
