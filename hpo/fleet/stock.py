"""KerasTuner's own workers, unmodified: who one is, and whether it still lives.

Between the start and the end of a trial such a worker says nothing, and what it says carries
no name. So it is known by its process: the one at the other end of its connection, which is
on this host, since such workers are served on loopback alone. An incarnation names that
process, and all that is done here follows from it: a chief that was restarted knows its
workers by what the ledger has of them.
"""

from __future__ import annotations

import contextlib
from typing import Any

import psutil

_PREFIX = "stock"


def incarnation_of(peer: str) -> str:
    """The incarnation of the process at the other end of ``peer``, a ``host:port``.

    Where the system does not tell the process, such as that of another user, the
    connection itself stands for it.
    """
    port = int(peer.rpartition(":")[2])
    connection = _connection(port)
    # It may have just ended, or be none of ours to look at.
    with contextlib.suppress(psutil.Error):
        if connection and connection.pid:
            return f"{_PREFIX}-{connection.pid}-{_born(psutil.Process(connection.pid))}"
    return f"{_PREFIX}-port-{port}"


def is_stock(incarnation: str) -> bool:
    """Whether a worker is one of KerasTuner's own."""
    return incarnation.startswith(f"{_PREFIX}-")


def process_id(incarnation: str) -> int:
    """The worker's process id; 0 where only its connection is known."""
    pid = incarnation.split("-")[1]
    return int(pid) if pid.isdecimal() else 0


def lives(incarnation: str) -> bool:
    """Whether the worker's process, or else its connection, is still there."""
    _, pid, rest = incarnation.split("-")
    if pid == "port":
        return _connection(int(rest)) is not None
    try:
        process = psutil.Process(int(pid))
        return str(_born(process)) == rest and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _born(process: psutil.Process) -> int:
    """When a process started, in milliseconds: ids are used again."""
    return int(process.create_time() * 1000)


def _connection(port: int) -> Any:
    """The connection whose near end is ``port``, seen from the worker; None if there is none."""
    for connection in psutil.net_connections("tcp"):
        here = connection.laddr and connection.laddr.port == port
        if here and connection.raddr and connection.status == psutil.CONN_ESTABLISHED:
            return connection
    return None
