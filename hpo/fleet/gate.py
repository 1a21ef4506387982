"""The gate: listens where workers dial, and lets through what speaks gRPC, under TLS or not.

gRPC says nothing of a connection that sends it garbage, and fills a log with those that fail
at TLS. So it listens on a socket that this user alone can reach, and everything from outside
comes through here, where it is known who calls and where the log has a limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import shutil
import socket
import ssl
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from hpo import address
from hpo.errors import PlaceError
from hpo.fleet.refusals import Refusals

# What every client of HTTP/2, and so of gRPC, sends first.
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_PATIENCE_S = 10.0
_LEAVE_S = 1.0
_PAUSE_S = 0.5
# The path of a UNIX socket must be short.
_PATH_CHARS = 60
_PREFIX, _SOCKET = "tunefleet-gate-", "grpc"
# A host that is gone without a word is noticed after some three minutes.
_SILENCE_S, _PROBE_S, _PROBES = 120, 20, 3


class Gate:
    """Joins each connection from outside to one of gRPC's own.

    It is made first, so that gRPC can listen at ``inside``, then opened. Raises PlaceError
    where there is no place for the sockets within.
    """

    def __init__(self, refusals: Refusals, tls: ssl.SSLContext | None) -> None:
        self._refusals = refusals
        self._tls = tls
        self._folder = _new_folder()
        self.inside = f"unix:{self._folder / _SOCKET}"
        self._listeners: Sequence[socket.socket] = ()
        self._tasks: set[asyncio.Task[None]] = set()
        self._peers: dict[str, str] = {}
        self._joined = 0

    def peer_of(self, name: str) -> str:
        """The ``host:port`` from outside of what gRPC knows as the peer ``name``."""
        return self._peers.get(name, name)

    def open(self, listeners: Sequence[socket.socket]) -> None:
        """Lets connections in from now on; the listeners are the gate's own."""
        self._listeners = listeners
        for listener in listeners:
            self._keep(self._accept(listener))

    async def close(self) -> None:
        """Lets nobody in any more; waits a moment for what gRPC has said last to be sent."""
        for task in self._tasks:
            task.cancel()
        for listener in self._listeners:
            listener.close()
        deadline = asyncio.get_running_loop().time() + _LEAVE_S
        while self._peers and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.01)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, name = await asyncio.get_running_loop().sock_accept(listener)
            except OSError as error:
                # It may be that no file descriptor is left; others will end.
                self._refusals.note("a connection", error.strerror or str(error))
                await asyncio.sleep(_PAUSE_S)
                continue
            self._keep(self._admit(connection, address.joined(str(name[0]), int(name[1]))))

    async def _admit(self, connection: socket.socket, peer: str) -> None:
        """Joins a connection to gRPC if it begins as it should."""
        _notice_silence(connection)
        outer = _End()
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: outer,
                connection,
                ssl=self._tls,
                ssl_handshake_timeout=_PATIENCE_S if self._tls else None,
            )
            async with asyncio.timeout(_PATIENCE_S):
                await outer.greeted
            await self._join(outer, peer)
        except (OSError, TimeoutError) as error:
            outer.abort()
            self._refusals.note(peer, _reason(error))

    async def _join(self, outer: _End, peer: str) -> None:
        self._joined += 1
        path = self._folder / str(self._joined)
        name = f"unix:{path}"
        near = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            near.setblocking(False)
            # By this name gRPC knows its peer.
            near.bind(str(path))
            loop = asyncio.get_running_loop()
            await loop.sock_connect(near, self.inside.removeprefix("unix:"))
            path.unlink()
        except BaseException:
            near.close()
            raise
        self._peers[name] = peer
        inner = _End(outer, when_gone=lambda: self._peers.pop(name, None))
        await loop.create_unix_connection(lambda: inner, sock=near)
        outer.join(inner)


class _End(asyncio.Protocol):
    """One end of a connection that is let through: what arrives here leaves by the other end.

    An end without another waits for gRPC's greeting: ``greeted`` is done once that was there,
    or has the ConnectionError of one that sent something else or went away.
    """

    def __init__(
        self, other: _End | None = None, when_gone: Callable[[], object] | None = None
    ) -> None:
        self.greeted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._other = other
        self._when_gone = when_gone
        self._early = b""
        self._transport: asyncio.Transport | None = None

    def join(self, other: _End) -> None:
        """Sends on what had arrived, and from now on whatever arrives, to ``other``."""
        self._other = other
        other.write(self._early)
        if self._transport is None or self._transport.is_closing():
            other.close()
        else:
            self._transport.resume_reading()

    def write(self, data: bytes) -> None:
        """Sends ``data`` off by this end."""
        if self._transport:
            self._transport.write(data)

    def close(self) -> None:
        """Ends this end once everything is sent."""
        if self._transport:
            self._transport.close()

    def abort(self) -> None:
        """Ends this end now."""
        self.greeted.cancel()
        if self._transport:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._other:
            self._other.write(data)
            return
        self._early += data
        known = self._early[: len(_GREETING)]
        if self.greeted.done() or (known != _GREETING and _GREETING.startswith(known)):
            return
        assert self._transport
        self._transport.pause_reading()
        if known == _GREETING:
            self.greeted.set_result(None)
        else:
            self.greeted.set_exception(ConnectionError("it does not speak gRPC"))

    def pause_writing(self) -> None:
        if self._other and self._other._transport:
            self._other._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._other and self._other._transport:
            self._other._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._when_gone:
            self._when_gone()
        if self._other:
            self._other.close()
        elif not self.greeted.done():
            self.greeted.set_exception(ConnectionError("it went away before it had said who it is"))


def _new_folder() -> pathlib.Path:
    """A folder for sockets that this user alone can reach."""
    try:
        base = pathlib.Path(tempfile.gettempdir())
        base = base if len(str(base)) < _PATH_CHARS else pathlib.Path("/tmp")
        _clear_up(base)
        return pathlib.Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
    except OSError as error:
        raise PlaceError(f"cannot make a temporary folder: {error.strerror}: see TMPDIR") from error


def _clear_up(base: pathlib.Path) -> None:
    """Takes away what a gate has left in ``base`` whose process was killed."""
    for folder in base.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(folder / _SOCKET))
            except ConnectionRefusedError:
                shutil.rmtree(folder, ignore_errors=True)


def _notice_silence(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _SILENCE_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _PROBE_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)


def _reason(error: OSError) -> str:
    """Why a connection was refused; TimeoutError is an OSError too."""
    if isinstance(error, ssl.SSLError):
        return f"it does not speak TLS as it should ({error.reason or error})"
    if isinstance(error, ConnectionResetError):
        return "it went away before it had said who it is"
    return str(error) or f"it did not say within {_PATIENCE_S:.0f} s who it is"
