"""The verbs that change a run on KubeRay: stop, resume, scale."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from typing import BinaryIO

from cluster.launchers.base import Handle
from cluster.launchers.kubernetes.changes import Changer
from cluster.launchers.kubernetes.connection import Connection
from cluster.launchers.kubernetes.inside import RUNS, execute, once_begun
from cluster.launchers.kubernetes.standing import Standing, There
from cluster.launchers.kubernetes.templates import Manifest
from cluster.launchers.rayjob.render import KIND
from hpo.errors import PlaceError

_WORKERS = re.compile(r"(?<= --workers=)[0-9]+")


class RayChanger(Changer):
    """Changes one run: the head is asked first, then KubeRay."""

    def __init__(self, connection: Connection, handle: Handle) -> None:
        super().__init__(connection, handle)
        self._there = There(connection, handle.id, KIND)

    def scale(self, workers: int) -> int:
        """Other numbers of workers from now on; the autoscaler brings and takes their pods."""
        standing = self._running(workers)
        head = standing.serving()
        if head is None:
            raise PlaceError(f"run {self._handle.id} has no head just now: ask again")
        words = ["scale", self._handle.id, "--workers", str(workers)]
        status = self._inside(head, words, wait=True)
        if status == 0:
            # For the next cluster, should this one be lost.
            self._resize(standing, workers)
        return status

    def _drain(self, standing: Standing, now: bool) -> None:
        """Lets trials end while their workers are there; the cluster goes only then."""
        if head := standing.serving():
            words = ["stop", self._handle.id, *(["--now"] if now else [])]
            # Where it goes before it has answered its own end has drained it: see preStop.
            with contextlib.suppress(PlaceError):
                self._inside(head, words, io.BytesIO(), io.BytesIO())
        self._suspend(True)

    def _suspend(self, suspended: bool) -> None:
        self._connection.patch(KIND, self._there.owner_name, {"spec": {"suspend": suspended}})

    def _is_whole(self, standing: Standing) -> bool:
        return standing.chief is not None

    def _resize(self, standing: Standing, workers: int) -> None:
        assert standing.chief
        spec = standing.chief["spec"]
        (group,) = spec["rayClusterSpec"]["workerGroupSpecs"]
        told = _WORKERS.sub(str(workers), spec["entrypoint"])
        # A list is replaced as a whole.
        changed = {"workerGroupSpecs": [{**group, "replicas": workers}]}
        self._connection.patch(
            KIND,
            self._there.owner_name,
            {"spec": {"entrypoint": told, "rayClusterSpec": changed}},
        )

    def _made(self, standing: Standing) -> list[Manifest]:
        return [standing.chief] if standing.chief else []

    def _inside(
        self,
        head: Manifest,
        words: list[str],
        out: BinaryIO | None = None,
        said: BinaryIO | None = None,
        wait: bool = False,
    ) -> int:
        name = head["metadata"]["name"]
        container = head["spec"]["containers"][0]["name"]
        whole = ["python", "launch.py", *words, "--runs", RUNS]
        if wait:
            whole = once_begun(self._handle.id, whole)
        sys.stdout.flush()
        return execute(self._connection, name, container, whole, out or sys.stdout.buffer, said)

    def _running(self, workers: int) -> Standing:
        standing = self._there.look()
        if standing.chief is None or standing.ended or standing.suspended:
            raise self._not_running(workers)
        return standing
