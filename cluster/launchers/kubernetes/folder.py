"""A run's folder on a cluster, in whichever pod it is mounted just now."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from cluster.launchers.base import Handle
from cluster.launchers.kubernetes.inside import (
    RUNS,
    GoneError,
    Sink,
    execute,
    has_begun,
    once_begun,
)
from cluster.launchers.kubernetes.obstacles import hopeless, obstacle
from cluster.launchers.kubernetes.patience import Patience
from cluster.launchers.kubernetes.render import CHIEF
from cluster.launchers.kubernetes.standing import (
    Standing,
    There,
    lacks_room,
    part_of,
    runs,
    serves_still,
)
from cluster.launchers.kubernetes.templates import Manifest
from cluster.launchers.kubernetes.viewer import VIEWER, ensure_viewer
from hpo.errors import PlaceError

_LOOK_S = 1.0
_FOLLOWED_S = 3.0
# Exit statuses of a command that SIGKILL or SIGTERM ended, its container's or its own.
_KILLED = (137, 143)
# How long a chief that is being moved or restarted is waited for, with nothing that moves.
_BACK_S = 120.0
# Where the scheduler has said that there is no room, nothing will come about in a moment.
_ROOM_S = 15.0

_Answer = TypeVar("_Answer")


class NotYetError(PlaceError):
    """No pod has the run's folder yet; one may come, in minutes or in hours."""


class RunFolder:
    """Where commands of a run are carried out: with its chief, or a viewer where it has none."""

    def __init__(self, there: There, handle: Handle) -> None:
        self._there, self._connection = there, there.connection
        self._handle, self._id = handle, handle.id
        self._served = ""

    def pod(self, standing: Standing | None = None, patience_s: float = _BACK_S) -> Manifest:
        """The pod that has the run's folder; PlaceError where there will be none for now."""
        patience = Patience(patience_s)
        while True:
            standing = standing or self._there.look()
            pod = standing.serving()
            if pod and (not standing.begins or self._has_begun(pod)):
                return pod
            if self._is_idle(standing):
                return self._viewer(standing)
            what = "has not begun" if standing.begins else "has no chief"
            if hopeless(standing):
                raise PlaceError(f"run {self._id} {what}: {self.why_none(standing)}")
            over = patience.is_over(standing.versions)
            if over or standing.waits or (_lacks_room(standing) and patience.quiet_for(_ROOM_S)):
                raise NotYetError(f"run {self._id} {what}: {self.why_none(standing)}")
            time.sleep(_LOOK_S)
            standing = None

    def await_pod(self) -> Manifest:
        """The same pod, however long it takes; what is waited for is told on the side.

        PlaceError where waiting does not help.
        """
        told = ""
        while True:
            try:
                return self.pod()
            except NotYetError as error:
                if (words := str(error)) != told:
                    print(f"launch.py: {words}", file=sys.stderr, flush=True)
                told = words
            time.sleep(_FOLLOWED_S)

    def serving(self) -> str:
        """The name of the pod that has the folder, or of the next chief's; no viewer is made.

        One that came as a run is resumed would keep the chief from the volume. PlaceError where
        there is no pod.
        """
        # Asked for each connection: a list of all pods is long where a thousand work.
        known = self._connection.read("Pod", self._served) if self._served else None
        if known is None or not runs(known):
            self._served = self._find_serving()
        return self._served

    def _find_serving(self) -> str:
        patience = Patience(_BACK_S)
        while True:
            standing = self._there.look()
            if pod := standing.serving() or standing.serving(VIEWER):
                return _names(pod)[0]
            if not standing.goes_on:
                raise PlaceError(
                    f"run {self._id} goes on no more: end this, and ask again for what it left"
                )
            if patience.is_over(standing.versions):
                raise NotYetError(f"run {self._id} has no chief: {self.why_none(standing)}")
            time.sleep(_LOOK_S)

    def do(
        self,
        pod: Manifest,
        verb: Sequence[str],
        more: Sequence[str] = (),
        out: Sink | None = None,
        said: Sink | None = None,
    ) -> int:
        """Carries out a verb of `launch.py` there; answers its exit status."""
        words = ["python", "launch.py", *verb, self._id, *more, "--runs", RUNS]
        # Of one that has yet to begin the cluster knows the status.
        if part_of(pod) == CHIEF and verb[0] != "status":
            words = once_begun(self._id, words)
        return self.inside(pod, words, out, said)

    def inside(
        self,
        pod: Manifest,
        words: Sequence[str],
        out: Sink | None = None,
        said: Sink | None = None,
    ) -> int:
        """Carries out a command in ``pod``; answers its exit status.

        Raises GoneError where the pod went before, or took the command along.
        """
        sys.stdout.flush()
        try:
            status = execute(self._connection, *_names(pod), words, out or sys.stdout.buffer, said)
        except GoneError:
            raise
        except PlaceError as error:
            if serves_still(self._connection, pod):
                raise
            raise GoneError(str(error)) from error
        if status in _KILLED and not serves_still(self._connection, pod):
            raise GoneError(f"pod {_names(pod)[0]} went meanwhile: ask again")
        return status

    def asked(self, ask: Callable[[Manifest], _Answer]) -> _Answer:
        """What ``ask`` answers of the pod that has the folder, or of the next where that one goes.

        A run that has just ended takes its pods along; the viewer comes after them.
        """
        patience = Patience(_BACK_S)
        while True:
            pod = self.pod()
            try:
                return ask(pod)
            except GoneError:
                # The next pod, and each that is asked, is another chance.
                if patience.is_over(pod["metadata"]["uid"]):
                    raise
            time.sleep(_LOOK_S)

    def why_none(self, standing: Standing) -> str:
        """Why no pod has the folder."""
        words = obstacle(self._there, standing)
        return words or ("it has yet to begin" if standing.begins else "its pod has yet to start")

    def _viewer(self, standing: Standing) -> Manifest:
        """The viewer; PlaceError where the run failed before it had anything to view."""
        pod = ensure_viewer(self._there, standing)
        if standing.failure and not self._has_begun(pod):
            raise PlaceError(
                f"run {self._id} failed before it began: {self.why_none(standing)}: mend "
                f"that, then python launch.py resume {self._handle}, or submit it under another id"
            )
        return pod

    def _has_begun(self, pod: Manifest) -> bool:
        """Whether the folder in the pod has the run, from now or from before."""
        try:
            return has_begun(self._connection, *_names(pod), self._id)
        except GoneError:
            return False

    @staticmethod
    def _is_idle(standing: Standing) -> bool:
        """Whether no chief has the volume, or is about to."""
        if standing.goes_on or standing.waits:
            return False
        chief = [pod for pod in standing.pods if part_of(pod) == CHIEF]
        return all(pod["status"].get("phase") in ("Succeeded", "Failed") for pod in chief)


def _lacks_room(standing: Standing) -> bool:
    """Whether what a run needs to go on has no room: its chief, on KubeRay any of its pods."""
    needed = (pod for pod in standing.pods if standing.begins or part_of(pod) == CHIEF)
    return any(lacks_room(pod) for pod in needed)


def _names(pod: Manifest) -> tuple[str, str]:
    return pod["metadata"]["name"], pod["spec"]["containers"][0]["name"]
