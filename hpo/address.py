"""Addresses: where a chief may serve, and under what others find it."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
from collections.abc import Iterator

from hpo.errors import UsageError

# Documentation networks (RFC 5737, RFC 3849): nothing is sent there, but the system says
# from which of its own addresses it would be.
_ELSEWHERE = (
    (socket.AF_INET, "192.0.2.1", "0.0.0.0"),
    (socket.AF_INET6, "2001:db8::1", "::"),
)
_BACKLOG = 1024


def joined(host: str, port: int) -> str:
    """``host:port``, as it is typed and as gRPC takes it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def host_of(address: str) -> str:
    """The host in ``host:port``."""
    return address.rpartition(":")[0].removeprefix("[").removesuffix("]")


def is_loopback(host: str) -> bool:
    """Whether what is sent to ``host`` stays on this machine; a name is looked at, not up."""
    if host == "localhost":
        return True
    literal = _literal(host)
    return literal is not None and literal.is_loopback


def from_here(host: str) -> str:
    """Where a process of this machine finds a chief that listens at ``host``."""
    literal = _literal(host)
    if literal is None or not literal.is_unspecified:
        return host
    return "127.0.0.1" if literal.version == 4 else "::1"


def from_elsewhere(host: str) -> str:
    """Where another machine finds a chief that listens at ``host``, as far as this one knows."""
    literal = _literal(host)
    if literal is None or not literal.is_unspecified:
        return host
    for family, target, own in _ELSEWHERE:
        # A socket for IPv4 alone is not found under an IPv6 address.
        if literal.version == 4 and family == socket.AF_INET6:
            continue
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((target, 9))
            found = str(probe.getsockname()[0])
            if found != own:
                return found
    return from_here(host)


def check(host: str, insecure: bool) -> None:
    """Raises UsageError where a chief could not, or should not, serve at ``host``."""
    if insecure and not is_loopback(host):
        raise UsageError(
            f"--insecure does not go with --host {host}: without a token the chief serves on "
            "loopback alone (127.0.0.1)"
        )
    for listener in listen(host, 0):
        listener.close()


def listen(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen at every address of ``host``, on one port; 0 takes a free one.

    Raises UsageError where the port is in use or the host is none of this machine's.
    """
    listeners: list[socket.socket] = []
    refused: OSError | None = None
    try:
        for family, address in _addresses(host):
            try:
                listeners.append(_listener(family, address, port))
            except OSError as error:
                if error.errno != errno.EADDRNOTAVAIL:
                    raise
                refused = error
                continue
            port = listeners[-1].getsockname()[1]
        if refused and not listeners:
            raise refused
    except OSError as error:
        for listener in listeners:
            listener.close()
        raise _why_not(host, port, error) from error
    return listeners


def _addresses(host: str) -> Iterator[tuple[socket.AddressFamily, str]]:
    if not host:
        raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, _, _, _, address in dict.fromkeys(found):
        yield family, str(address[0])


def _listener(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # A chief that comes back finds its port, whatever connections are still closing.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address != "::"))
        listener.setblocking(False)
        listener.bind((address, port))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _why_not(host: str, port: int, error: OSError) -> UsageError:
    if error.errno == errno.EADDRINUSE:
        return UsageError(
            f"port {port} on {host} is in use: give another --port, or none for a free one"
        )
    if error.errno == errno.EACCES:
        return UsageError(f"port {port} on {host} is not ours to take: give one above 1023")
    return UsageError(
        f"the chief cannot serve at {host!r} ({error.strerror or error}): give an address of this "
        "machine, or 0.0.0.0 for all of them"
    )


def _literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
