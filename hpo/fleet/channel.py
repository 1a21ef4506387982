"""The way to a chief: in the clear on loopback alone, elsewhere under TLS."""

from __future__ import annotations

from typing import Any

import grpc

from hpo import address as addresses
from hpo import tls
from hpo.fleet import wire

# What gRPC says of a handshake that failed for whom the other end is; it has no code for it.
_WRONG_END = {
    "CERTIFICATE_VERIFY_FAILED": "it shows another certificate than the token file's",
    "Hostname Verification Check failed": "its certificate is for another host",
    "WRONG_VERSION_NUMBER": "it does not speak TLS",
}


def open_channel(address: str, certificates: str) -> grpc.Channel:
    """A channel to the chief at ``address``, known by ``certificates`` (PEM; "": none given).

    Without any, this system's authorities are trusted beyond loopback. Raises UsageError
    where the certificates are garbled.
    """
    options: list[tuple[str, Any]] = [
        # A chief that comes back is found within a second, not after two minutes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
        ("grpc.enable_http_proxy", 0),
        ("grpc.max_receive_message_length", wire.MESSAGE_BYTES),
    ]
    if not certificates and addresses.is_loopback(addresses.host_of(address)):
        return grpc.insecure_channel(address, options=options)
    # Of a network that is cut nobody is told.
    options += [("grpc.keepalive_time_ms", wire.PING_MS)]
    options += [("grpc.keepalive_timeout_ms", wire.PING_MS)]
    roots = certificates.encode() or tls.system_roots()
    name = tls.pinned_name(certificates) if certificates else None
    if name:
        options.append(("grpc.ssl_target_name_override", name))
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(roots), options=options)


def wrong_end(error: Any) -> str | None:
    """Why the other end cannot be the chief, if that is why a call failed."""
    if error.code() is not grpc.StatusCode.UNAVAILABLE:
        return None
    said = error.details() or ""
    return next((why for mark, why in _WRONG_END.items() if mark in said), None)
