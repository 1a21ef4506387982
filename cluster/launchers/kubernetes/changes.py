"""The verbs that change a run on a cluster: stop, resume, scale."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from typing import Any

from cluster.launchers.base import Handle
from cluster.launchers.kubernetes.connection import Connection
from cluster.launchers.kubernetes.inside import RUNS, execute
from cluster.launchers.kubernetes.patience import Patience
from cluster.launchers.kubernetes.render import CHIEF, WORKER, object_name
from cluster.launchers.kubernetes.standing import Standing, There
from cluster.launchers.kubernetes.templates import Manifest
from cluster.launchers.kubernetes.viewer import VIEWER, ensure_viewer, remove_viewer
from hpo.errors import PlaceError, RunError

_LOOK_S = 0.5
# Longer than any pod's grace period has reason to be beyond its trials'.
_BEYOND_GRACE_S = 60.0
# What the cluster puts on a Job that another one must not have.
_OF_THE_OLD = ("controller-uid", "batch.kubernetes.io/controller-uid")
_NAMES = ("job-name", "batch.kubernetes.io/job-name")


class Changer:
    """Changes one run."""

    def __init__(self, connection: Connection, handle: Handle) -> None:
        self._connection, self._handle = connection, handle
        self._there = There(connection, handle.id)

    def stop(self, now: bool) -> int:
        """Suspends both Jobs; returns once their pods are gone.

        Running trials have the grace period to end; what has not is saved and put back, with
        ``now`` at once.
        """
        standing = self._there.look()
        if standing.ended or standing.suspended or standing.chief is None:
            print(f"run {self._handle.id} is not running")
            return 0
        self._check_no_queue(standing)
        print(f"stopping {self._handle.id}{'' if now else '; running trials may end'}", flush=True)
        self._drain(standing, now)
        self._await_no_pods(standing)
        print(f"go on with: python launch.py resume {self._handle}")
        return 0

    def resume(self, terms: Sequence[str], workers: int | None) -> int:
        """Lets the run go on, under other terms or with other numbers of workers if asked for.

        ``terms`` are what `cluster.terms` takes.
        """
        standing = self._there.look()
        if not self._is_whole(standing):
            raise RunError(f"run {self._handle.id} is gone but for its results: submit it again")
        self._check_no_queue(standing)
        if not standing.ended and not standing.suspended:
            if terms:
                raise RunError(f"run {self._handle.id} is running: stop it first")
            print(f"run {self._handle} is running")
            return 0
        if terms:
            self._note(standing, terms)
        remove_viewer(self._there)
        if standing.ended:
            self._again(standing)
        if workers is not None:
            self._resize(standing, workers)
        self._suspend(False)
        print(f"run {self._handle}\nnext:\n  python launch.py watch {self._handle}")
        return 0

    def scale(self, workers: int) -> int:
        """Other numbers of workers from now on; those beyond save their trials and leave."""
        standing = self._there.look()
        if standing.worker is None or standing.ended or standing.suspended:
            raise self._not_running(workers)
        before = standing.worker["spec"]["parallelism"]
        self._resize(standing, workers)
        print(f"run {self._handle.id}: {workers} workers wanted, {before} before")
        return 0

    def _not_running(self, workers: int) -> RunError:
        return RunError(
            f"run {self._handle.id} is not running: start it with "
            f"python launch.py resume {self._handle} --workers {workers}"
        )

    def _drain(self, standing: Standing, now: bool) -> None:
        """Has the run's pods leave: what runs is saved and put back in time."""
        self._suspend(True)
        chief = standing.serving()
        if now and chief:
            words = ["python", "launch.py", "stop", self._handle.id, "--now", "--runs", RUNS]
            execute(self._connection, chief["metadata"]["name"], CHIEF, words, io.BytesIO())

    def _suspend(self, suspended: bool) -> None:
        for part in (CHIEF, WORKER):
            self._patch(part, {"suspend": suspended})

    def _is_whole(self, standing: Standing) -> bool:
        """Whether there is all that can go on."""
        return standing.chief is not None and standing.worker is not None

    def _resize(self, standing: Standing, workers: int) -> None:
        # Both together, always: an Indexed Job scales only so.
        self._patch(WORKER, {"parallelism": workers, "completions": workers})

    def _made(self, standing: Standing) -> list[Manifest]:
        """The objects that the run is."""
        return [job for job in (standing.chief, standing.worker) if job]

    def _patch(self, part: str, spec: dict[str, Any]) -> None:
        self._connection.patch("Job", object_name(self._handle.id, part), {"spec": spec})

    def _check_no_queue(self, standing: Standing) -> None:
        """Raises RunError for a run that Kueue suspends and lets go as it sees fit."""
        assert standing.chief
        if queue := standing.queue:
            raise RunError(
                f"run {self._handle.id} is in Kueue's queue {queue}, which decides when it runs: "
                "set `active` of its two Workloads (kubectl get workloads) to false or true"
            )

    def _await_no_pods(self, standing: Standing) -> None:
        graces = (pod["spec"]["terminationGracePeriodSeconds"] for pod in standing.pods)
        grace_s = max(graces, default=0)
        patience = Patience(grace_s + _BEYOND_GRACE_S)
        while True:
            standing = self._there.look()
            running = [
                pod["metadata"]["name"]
                for pod in standing.pods
                if pod["status"].get("phase") not in ("Succeeded", "Failed")
                and pod["metadata"]["labels"]["app.kubernetes.io/component"] != VIEWER
            ]
            if not running:
                return
            if patience.is_over(standing.versions):
                raise PlaceError(
                    f"{', '.join(running)} did not end in time: is a node gone? "
                    "See `kubectl get nodes`"
                )
            time.sleep(_LOOK_S)

    def _note(self, standing: Standing, terms: Sequence[str]) -> None:
        """Writes other terms into the ledger, from the pod that has it."""
        pod = ensure_viewer(self._there, standing)
        words = ["python", "-m", "cluster.terms", RUNS, self._handle.id, *terms]
        name, said = pod["metadata"]["name"], io.BytesIO()
        if execute(self._connection, name, VIEWER, words, io.BytesIO(), said):
            raise RunError(said.getvalue().decode().strip().removeprefix("launch.py: "))

    def _again(self, standing: Standing) -> None:
        """What the run is made anew: what has ended cannot be started again."""
        made = self._made(standing)
        for old in made:
            self._connection.delete(old["kind"], old["metadata"]["name"])
        for old in made:
            self._connection.await_gone(old["kind"], old["metadata"]["name"], _BEYOND_GRACE_S)
        for old in made:
            self._connection.create(_anew(old))


def _anew(old: Manifest) -> Manifest:
    """The object as it was submitted, suspended until all is ready."""
    metadata, spec = old["metadata"], {**old["spec"], "suspend": True}
    kept = {name: metadata[name] for name in ("name", "labels", "annotations") if name in metadata}
    kept["labels"] = _without(kept["labels"])
    spec.pop("selector", None)
    if "template" in spec:
        labels = _without(spec["template"]["metadata"]["labels"])
        spec["template"] = {**spec["template"], "metadata": {"labels": labels}}
    return {"apiVersion": old["apiVersion"], "kind": old["kind"], "metadata": kept, "spec": spec}


def _without(labels: dict[str, str]) -> dict[str, str]:
    return {name: text for name, text in labels.items() if name not in (*_OF_THE_OLD, *_NAMES)}
