"""Logs that are followed from one pod of a run to the next."""

from __future__ import annotations

import contextlib
import io
import sys
import time

from cluster import tables
from cluster.launchers.kubernetes.connection import Connection
from cluster.launchers.kubernetes.inside import Sink
from cluster.launchers.kubernetes.obstacles import hopeless, reason_of
from cluster.launchers.kubernetes.patience import Patience
from cluster.launchers.kubernetes.render import CHIEF, WORKER
from cluster.launchers.kubernetes.standing import Standing, There, has_started
from cluster.launchers.kubernetes.templates import Manifest
from hpo.errors import PlaceError

_LOOK_S = 1.0
# How long a pod that is to start, or to take another's place, is waited for without a word.
_UNTOLD_S = 20.0


class Rest:
    """Passes on what is new of a text that may come again from its beginning."""

    def __init__(self, out: Sink) -> None:
        self._out, self._passed, self._skip = out, 0, 0

    def again(self) -> None:
        """What is written next is the text from its beginning."""
        self._skip = self._passed

    def write(self, chunk: bytes, /) -> None:
        """Passes on what of ``chunk`` was not there before."""
        new = chunk[self._skip :]
        self._skip -= min(self._skip, len(chunk))
        self._out.write(new)
        self._passed += len(new)

    def flush(self) -> None:
        """Passes it on at once."""
        self._out.flush()


class PodLog:
    """The log of one pod: what was printed of it once is not printed again."""

    def __init__(self, connection: Connection, pod: Manifest, which: str, as_json: bool) -> None:
        self._connection, self._pod, self._which = connection, pod, which
        self._as_json, self._lines = as_json, 0

    def is_of(self, pod: Manifest) -> bool:
        """Whether it is this pod's."""
        return bool(pod["metadata"]["uid"] == self._pod["metadata"]["uid"])

    def show(self, follow: bool = False) -> None:
        """Prints what is there, with ``follow`` as it comes; PlaceError where there is no log."""
        if not has_started(self._pod):
            # The cluster would say that it waits; a person wants to know why.
            raise PlaceError(no_log(self._which, self._pod))
        with self._connection.plainly():
            answer = self._connection.core().read_namespaced_pod_log(
                self._pod["metadata"]["name"],
                self._connection.namespace,
                container=self._pod["spec"]["containers"][0]["name"],
                follow=follow,
                _preload_content=False,
            )
            for number, line in enumerate(io.TextIOWrapper(answer, errors="replace"), start=1):
                if number > self._lines:
                    self._print(line)
                    self._lines = number

    def _print(self, line: str) -> None:
        if self._as_json:
            tables.print_json({"source": self._which, "line": line.rstrip("\n")})
        else:
            print(line, end="", flush=True)


def no_log(which: str, pod: Manifest | None) -> str:
    """Why there is no log of ``which``, whose pod is this one."""
    return f"{which} has no log yet: {(pod and reason_of(pod)) or 'it starts'}"


def follow_log(there: There, which: str, as_json: bool) -> None:
    """Prints the log of ``which`` as it comes, and those of the pods that take its place.

    Ends with the run. What it waits for is told on the side, since a pod may wait for hours.
    Raises PlaceError where no pod will start.
    """
    log, patience, told = None, Patience(_UNTOLD_S), ""
    while True:
        standing = there.look()
        pod = standing.latest(which)
        if pod and has_started(pod):
            if log is None or not log.is_of(pod):
                log = PodLog(there.connection, pod, which, as_json)
            # A connection may break before the pod ends: it is asked again then.
            with contextlib.suppress(PlaceError):
                log.show(follow=True)
            standing = there.look()
            pod = standing.latest(which)
        phase = pod["status"].get("phase") if pod else None
        if log and (phase == "Succeeded" or not standing.goes_on):
            return
        if not may_come(standing, which) or hopeless(standing, which):
            raise PlaceError(no_log(which, pod))
        words = no_log(which, pod)
        if phase != "Running" and patience.is_over((words, log)) and words != told:
            told = words
            print(f"launch.py: {words}", file=sys.stderr, flush=True)
        time.sleep(_LOOK_S)


def may_come(standing: Standing, which: str) -> bool:
    """Whether the cluster runs a pod of ``which``, or will."""
    part, _, index = which.partition("-")
    if not standing.goes_on or part != WORKER or standing.worker is None:
        return standing.goes_on and which == CHIEF
    return index.isdecimal() and int(index) < standing.worker["spec"]["parallelism"]
