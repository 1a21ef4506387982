"""`launch.py` in the pod that has a run's folder: what it says is said here."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Sequence
from typing import Protocol

from cluster.launchers.kubernetes.connection import Connection
from hpo.errors import PlaceError
from hpo.ledger.file import FILE

# Where the run's volume is mounted.
RUNS = "/runs"
_WAIT_S = 5.0
_OUT, _SAID, _STATUS = 1, 2, 3
# A chief's pod runs some seconds before its run has a folder; on KubeRay half a minute.
_BEGUN = 'n=0; until [ -e "$0" ] || [ $n -ge 300 ]; do n=$((n+1)); sleep 1; done; exec "$@"'


class Sink(Protocol):
    """What a command's output is copied to."""

    def write(self, chunk: bytes, /) -> object:
        """Takes some of it."""

    def flush(self) -> None:
        """Passes on what was taken."""


class GoneError(PlaceError):
    """The container went before the command ended, or before it began."""


def once_begun(run_id: str, words: Sequence[str]) -> list[str]:
    """A command that waits in a chief's pod until its run can be opened."""
    return ["sh", "-c", _BEGUN, _ledger(run_id), *words]


def has_begun(connection: Connection, pod: str, container: str, run_id: str) -> bool:
    """Whether the folder that is mounted in a pod has a run that can be opened."""
    words = ["test", "-e", _ledger(run_id)]
    return execute(connection, pod, container, words, io.BytesIO()) == 0


def _ledger(run_id: str) -> str:
    return f"{RUNS}/{run_id}/{FILE}"


def execute(
    connection: Connection,
    pod: str,
    container: str,
    words: Sequence[str],
    out: Sink,
    said: Sink | None = None,
) -> int:
    """Runs a command in a container and copies what it prints; answers its exit status.

    Raises GoneError where the pod went meanwhile or before.
    """
    from kubernetes.stream import stream

    core = connection.fresh()
    with connection.plainly():
        talk = stream(
            core.connect_get_namespaced_pod_exec,
            pod,
            connection.namespace,
            container=container,
            command=list(words),
            stdin=False,
            stdout=True,
            stderr=True,
            tty=False,
            _preload_content=False,
            binary=True,
        )
    with contextlib.closing(talk):
        try:
            while talk.is_open():
                talk.update(timeout=_WAIT_S)
                _copy(talk, out, said or sys.stderr.buffer)
        except OSError as error:
            raise GoneError(f"the connection to pod {pod} broke: {error}: try again") from error
        _copy(talk, out, said or sys.stderr.buffer)
        return _status(talk.read_channel(_STATUS), pod)


def _copy(talk: object, out: Sink, said: Sink) -> None:
    for channel, stream in ((_OUT, out), (_SAID, said)):
        if chunk := talk.read_channel(channel):  # type: ignore[attr-defined]
            stream.write(chunk)
            stream.flush()


def _status(text: bytes, pod: str) -> int:
    """The exit status from the status object that ends a command."""
    if not text:
        raise GoneError(f"pod {pod} is gone: ask again when the search goes on")
    status = json.loads(text)
    if status.get("status") == "Success":
        return 0
    for cause in status.get("details", {}).get("causes", ()):
        if cause.get("reason") == "ExitCode":
            return int(cause["message"])
    raise GoneError(f"pod {pod}: {status.get('message')}")
