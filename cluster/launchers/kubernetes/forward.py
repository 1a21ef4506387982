"""A port of this machine that leads to a port of a pod, through the API server."""

from __future__ import annotations

import contextlib
import socket
import threading

from cluster.launchers.kubernetes.connection import Connection
from hpo.errors import PlaceError

_CHUNK = 1 << 16


class Forward:
    """Listens at ``host:port`` (0: a free one) and joins each connection to a pod's port.

    Raises PlaceError where nothing can listen there.
    """

    def __init__(
        self, connection: Connection, pod: str, pod_port: int, host: str, port: int
    ) -> None:
        self._connection, self._pod, self._pod_port = connection, pod, pod_port
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
                joined = portforward(
                    core.connect_get_namespaced_pod_portforward,
                    self._pod,
                    self._connection.namespace,
                    ports=str(self._pod_port),
                )
            except (ApiException, OSError):
                # Whoever came sees a connection that closes, and may try again.
                return
            far = joined.socket(self._pod_port)
            back = threading.Thread(target=_pump, args=(far, near), daemon=True)
            back.start()
            _pump(near, far)
            back.join()
            far.close()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(_CHUNK):
            sink.sendall(chunk)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
