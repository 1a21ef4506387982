"""A port of this machine that leads to a port of a pod, through the API server."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from collections.abc import Callable

from cluster.launchers.kubernetes.connection import Connection
from hpo.errors import PlaceError

_CHUNK = 1 << 16


class Forward:
    """Listens at ``host:port`` (0: a free one) and joins each connection to a pod's port.

    ``pod`` answers its name for each of them, since a chief may move; its PlaceError is told on
    the side. Raises PlaceError where nothing can listen there.
    """

    def __init__(
        self, connection: Connection, pod: Callable[[], str], pod_port: int, host: str, port: int
    ) -> None:
        self._connection, self._pod, self._pod_port = connection, pod, pod_port
        self._told = ""
        try:
            self._listener = socket.create_server((host, port))
        except OSError as error:
            raise PlaceError(
                f"cannot listen at {host}:{port}: {error.strerror}: give another --port"
            ) from error
        self.port: int = self._listener.getsockname()[1]

    def serve(self) -> None:
        """Joins whoever comes, until the listener is closed."""
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._join, args=(near,), daemon=True).start()

    def close(self) -> None:
        """Listens no more."""
        self._listener.close()

    def _join(self, near: socket.socket) -> None:
        from kubernetes.client import ApiException
        from kubernetes.stream import portforward

        core = self._connection.fresh()
        with contextlib.closing(near):
            try:
                pod = self._pod()
                joined = portforward(
                    core.connect_get_namespaced_pod_portforward,
                    pod,
                    self._connection.namespace,
                    ports=str(self._pod_port),
                )
            except PlaceError as error:
                self._tell(str(error))
                return
            except (ApiException, OSError):
                # Whoever came sees a connection that closes, and may try again.
                return
            self._told = ""
            far = joined.socket(self._pod_port)
            back = threading.Thread(target=_pump, args=(far, near), daemon=True)
            back.start()
            _pump(near, far)
            back.join()
            far.close()

    def _tell(self, words: str) -> None:
        """A browser asks again and again: the same is told once."""
        if words != self._told:
            self._told = words
            print(f"launch.py: {words}", file=sys.stderr, flush=True)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(_CHUNK):
            sink.sendall(chunk)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
