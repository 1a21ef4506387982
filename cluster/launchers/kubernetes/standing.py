"""Where a run on a cluster stands: its Jobs and its pods, as the API server has them."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

from cluster.launchers.kubernetes.connection import Connection
from cluster.launchers.kubernetes.render import CHIEF, COMPONENT, WORKER, object_name
from cluster.launchers.kubernetes.templates import Manifest
from hpo.errors import RunError

_LOOK_S = 0.5
_NOTICED_S = 30.0
_QUEUE = "kueue.x-k8s.io/queue-name"
_INDEX = "batch.kubernetes.io/job-completion-index"
# How KubeRay calls the ends of a RayJob, and what comes before its search.
_ENDS = {"Complete": "Complete", "Failed": "Failed", "ValidationFailed": "Failed"}
_BEFORE = ("", "Initializing", "Waiting", "Retrying")
_PLACES = {"Job": "k8s", "RayJob": "rayjob"}


@dataclasses.dataclass(frozen=True)
class Standing:
    """A run's objects (None where they are gone) and its pods, the chief's first.

    ``chief`` is the chief's Job or the RayJob, ``worker`` the workers' Job where they have one.
    """

    chief: Manifest | None
    worker: Manifest | None
    pods: tuple[Manifest, ...]

    @property
    def suspended(self) -> bool:
        """Whether somebody stopped it, or a queue has yet to let it go."""
        return bool(self.chief and self.chief["spec"].get("suspend"))

    @property
    def versions(self) -> tuple[str, ...]:
        """What is another with each change of any of it."""
        made = (row for row in (self.chief, self.worker, *self.pods) if row)
        return tuple(str(row["metadata"].get("resourceVersion", "")) for row in made)

    @property
    def ended(self) -> str:
        """How the chief's Job ended: "Complete", "Failed", or "" where it goes on."""
        status = (self.chief or {}).get("status", {})
        if whole := _ENDS.get(status.get("jobDeploymentStatus")):
            return whole
        for condition in status.get("conditions", ()):
            if condition["type"] in ("Complete", "Failed") and condition["status"] == "True":
                return str(condition["type"])
        return ""

    @property
    def queue(self) -> str:
        """Kueue's queue that decides when the run goes on; "" for none."""
        return str((self.chief or {"metadata": {}})["metadata"].get("labels", {}).get(_QUEUE, ""))

    @property
    def waits(self) -> bool:
        """Whether a queue lets the run go on at any moment, which then needs its volume."""
        return bool(self.suspended and self.queue and not self.ended)

    @property
    def begins(self) -> bool:
        """Whether KubeRay has yet to start the search, for which all pods have to be there."""
        if self.chief is None or self.chief["kind"] != "RayJob":
            return False
        return self.chief.get("status", {}).get("jobDeploymentStatus", "") in _BEFORE

    @property
    def goes_on(self) -> bool:
        """Whether a chief works for it, or another will."""
        return self.chief is not None and not self.ended and not self.suspended

    @property
    def failure(self) -> str:
        """What the cluster says of the chief's Job that failed; "" where it has not."""
        status = (self.chief or {}).get("status", {})
        rows = status.get("conditions", ())
        failed = (row for row in rows if row["type"] == "Failed" and row["status"] == "True")
        said = next((row.get("message", "") for row in failed), "") or status.get("message", "")
        return last_line(said) if self.ended == "Failed" else ""

    def serving(self, part: str = CHIEF) -> Manifest | None:
        """The pod of ``part`` whose main container runs; None where none does."""
        return next((pod for pod in self.pods if part_of(pod) == part and runs(pod)), None)

    def latest(self, part: str) -> Manifest | None:
        """The youngest pod of ``part``."""
        made = [pod for pod in self.pods if part_of(pod) == part]
        return max(made, key=lambda pod: pod["metadata"]["creationTimestamp"], default=None)


def runs(pod: Manifest) -> bool:
    """Whether the pod's first container runs."""
    return bool(_running(pod))


def _running(pod: Manifest) -> str:
    """The id of the pod's first container while it runs; KubeRay may put others beside it."""
    main = pod["spec"]["containers"][0]["name"]
    rows = pod["status"].get("containerStatuses", ())
    runs = (row for row in rows if row["name"] == main and "running" in row["state"])
    return str(next((row.get("containerID") or main for row in runs), ""))


def lacks_room(pod: Manifest) -> bool:
    """Whether the scheduler has said that it finds no node for the pod."""
    rows = pod["status"].get("conditions", ())
    return any(row["type"] == "PodScheduled" and row["status"] == "False" for row in rows)


def has_started(pod: Manifest) -> bool:
    """Whether the pod's first container runs or has run: then it has a log."""
    main = pod["spec"]["containers"][0]["name"]
    rows = pod["status"].get("containerStatuses", ())
    return any(row["name"] == main and "waiting" not in row["state"] for row in rows)


def serves_still(connection: Connection, pod: Manifest) -> bool:
    """Whether the container that ran in ``pod`` goes on; looks for a while before it says so.

    What ended a container shows in its status only later, on a loaded node many seconds.
    """
    deadline = time.monotonic() + _NOTICED_S
    while True:
        now = connection.read("Pod", pod["metadata"]["name"])
        if now is None or "deletionTimestamp" in now["metadata"] or _running(now) != _running(pod):
            return False
        if time.monotonic() > deadline:
            return True
        time.sleep(_LOOK_S)


@dataclasses.dataclass(frozen=True)
class There:
    """A run on a cluster; ``owner`` is the kind of object that it is: Job or RayJob."""

    connection: Connection
    id: str
    owner: str = "Job"

    @property
    def owner_name(self) -> str:
        """The name of the chief's Job, or of the RayJob."""
        return owner_name(self.owner, self.id)

    def look(self, most: int = 0) -> Standing:
        """What there is of it; RunError where nothing is.

        ``most`` stands for so many pods at most, the chief's before the workers'; 0 for all.
        """
        made = {row["metadata"]["name"]: row for row in self.connection.of_run(self.owner, self.id)}
        chief = made.get(self.owner_name)
        if (
            chief is None
            and self.connection.read("PersistentVolumeClaim", claim_of(self.id)) is None
        ):
            place = _PLACES[self.owner]
            raise RunError(
                f"no run {self.id!r} in namespace {self.connection.namespace}: "
                f"see `launch.py list --on {place} --namespace {self.connection.namespace}`"
            )
        pods = sorted(self._pods(most), key=_order)
        return Standing(chief, made.get(object_name(self.id, WORKER)), tuple(pods))

    def _pods(self, most: int) -> list[Manifest]:
        if not most:
            return self.connection.of_run("Pod", self.id)
        chiefs = self.connection.of_run("Pod", self.id, CHIEF)
        left = max(1, most - len(chiefs))
        return chiefs + self.connection.of_run("Pod", self.id, WORKER, limit=left)


def owner_name(owner: str, run_id: str) -> str:
    """The name of the object of the kind ``owner`` that a run is."""
    return object_name(run_id, CHIEF if owner == "Job" else "")


def claim_of(run_id: str) -> str:
    """The name of the volume claim of a run."""
    return object_name(run_id, "runs")


def part_of(pod: Manifest) -> str:
    """Which process of the search a pod is."""
    labels = pod["metadata"]["labels"]
    part = str(labels.get(COMPONENT, ""))
    return f"{part}-{labels[_INDEX]}" if part == WORKER and _INDEX in labels else part


def _order(pod: Manifest) -> tuple[Any, ...]:
    labels = pod["metadata"]["labels"]
    return labels.get(COMPONENT, ""), int(labels.get(_INDEX, 0)), pod["metadata"]["name"]


def last_line(text: str) -> str:
    """The last line of what a log ends with."""
    return "".join(text.strip().splitlines()[-1:])
