"""Which Ray cluster a search is to run in, and whether somebody is there at all."""

from __future__ import annotations

import os
import socket

from hpo.errors import PlaceError, UsageError

_ADDRESS = "RAY_ADDRESS"
_ANSWER_S = 5.0
# Names of Ray's for what is found without an address.
_FOUND_BY_RAY = ("auto", "local")


def cluster_address() -> str | None:
    """The cluster that exists already; None for one of our own on this machine."""
    return os.environ.get(_ADDRESS) or None


def check_reachable() -> None:
    """Raises, at once, where nobody listens at the cluster's address: Ray would try for minutes.

    UsageError for what is no address, PlaceError for one at which nobody answers.
    """
    address = cluster_address()
    if address is None or address in _FOUND_BY_RAY:
        return
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdecimal()) or "://" in host:
        raise UsageError(f"{_ADDRESS}={address}: give HOST:PORT of a Ray cluster's head")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_S).close()
    except (OSError, OverflowError) as error:
        raise PlaceError(
            f"the Ray cluster at {address} does not answer ({error}): start it, or see {_ADDRESS}"
        ) from error
