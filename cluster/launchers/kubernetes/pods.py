"""What there is of a run on a cluster: its Jobs and pods, and what is the matter with them."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

from cluster.launchers.kubernetes.connection import Connection
from cluster.launchers.kubernetes.render import CHIEF, COMPONENT, WORKER, object_name
from cluster.launchers.kubernetes.templates import Manifest
from hpo.errors import RunError

_LOOK_S = 0.5
_NOTICED_S = 10.0
_QUEUE = "kueue.x-k8s.io/queue-name"
_INDEX = "batch.kubernetes.io/job-completion-index"
# Reasons of a container that waits which another attempt will not mend by itself.
HOPELESS = {
    "ErrImagePull": "is the image pushed, and may the cluster read it? See --image",
    "ImagePullBackOff": "is the image pushed, and may the cluster read it? See --image",
    "ErrImageNeverPull": "load the image into the node, or leave out --pull-policy Never",
    "InvalidImageName": "give a name such as registry.example/tunefleet:1",
    "CreateContainerConfigError": "see `kubectl describe pod`",
}
# How KubeRay calls the ends of a RayJob, and what comes before its search.
_ENDS = {"Complete": "Complete", "Failed": "Failed", "ValidationFailed": "Failed"}
_BEFORE = ("", "Initializing", "Waiting", "Retrying")
_THERE = "already exists"
_PLACES = {"Job": "k8s", "RayJob": "rayjob"}
# What an event's text says of what a person can do.
_ADVICE = (
    ("insufficient nvidia.com/", "free GPUs, fewer workers, or another --gpu-resource"),
    ("insufficient cpu", "free cores, or fewer --cpus"),
    ("insufficient memory", "free memory, or less --memory"),
    ("didn't match pod's node affinity", "see the labels of the nodes"),
    ("readwriteoncepod", "delete the run's viewer pod, which has its volume"),
    ("untolerated taint", "see the taints of the nodes"),
    ("unbound immediate persistentvolumeclaims", "see --storage-class and `kubectl get pvc`"),
    ("exceeded quota", "ask for less, or have the quota raised"),
    ("violates podsecurity", "have the namespace's Pod Security level looked at"),
)


@dataclasses.dataclass(frozen=True)
class PodState:
    """A pod: ``part`` is "chief", "worker-N" or "viewer"; ``event`` the last that befell it."""

    name: str
    part: str
    node: str
    phase: str
    restarts: int
    reason: str
    event: str

    def to_json(self) -> dict[str, Any]:
        """The row of ``status --json``."""
        return dataclasses.asdict(self)


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
        return next((pod for pod in self.pods if part_of(pod) == part and _runs(pod)), None)

    def latest(self, part: str) -> Manifest | None:
        """The youngest pod of ``part``."""
        made = [pod for pod in self.pods if part_of(pod) == part]
        return max(made, key=lambda pod: pod["metadata"]["creationTimestamp"], default=None)


def _runs(pod: Manifest) -> bool:
    return bool(_running(pod))


def _running(pod: Manifest) -> str:
    """The id of the pod's first container while it runs; KubeRay may put others beside it."""
    main = pod["spec"]["containers"][0]["name"]
    rows = pod["status"].get("containerStatuses", ())
    runs = (row for row in rows if row["name"] == main and "running" in row["state"])
    return str(next((row.get("containerID") or main for row in runs), ""))


def has_started(pod: Manifest) -> bool:
    """Whether the pod's first container runs or has run: then it has a log."""
    main = pod["spec"]["containers"][0]["name"]
    rows = pod["status"].get("containerStatuses", ())
    return any(row["name"] == main and "waiting" not in row["state"] for row in rows)


def serves_still(connection: Connection, pod: Manifest) -> bool:
    """Whether the container that ran in ``pod`` goes on; looks for some seconds before it says so.

    What ended a container shows in its status only a little later.
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


def states(connection: Connection, standing: Standing) -> list[PodState]:
    """The pods with what is known of each."""
    last: dict[str, Manifest] = {}
    fields = "involvedObject.kind=Pod"
    for event in sorted(connection.every("Event", field_selector=fields), key=_time):
        last[event["involvedObject"]["name"]] = event
    return [_state(pod, last.get(pod["metadata"]["name"])) for pod in standing.pods]


def _time(event: Manifest) -> str:
    return str(
        event.get("lastTimestamp")
        or event.get("eventTime")
        or event["metadata"].get("creationTimestamp")
        or ""
    )


def _state(pod: Manifest, event: Manifest | None) -> PodState:
    status = pod["status"]
    rows = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    leaving = " (leaving)" if pod["metadata"].get("deletionTimestamp") else ""
    return PodState(
        name=pod["metadata"]["name"],
        part=part_of(pod),
        node=pod["spec"].get("nodeName", ""),
        phase=status.get("phase", "") + leaving,
        restarts=sum(row.get("restartCount", 0) for row in rows),
        reason=reason_of(pod),
        event=f"{event['reason']}: {event['message']}" if event else "",
    )


def reason_of(pod: Manifest) -> str:
    """Why a pod does not run, in the cluster's own words; "" where it does."""
    status = pod["status"]
    for condition in status.get("conditions", ()):
        if condition["type"] == "DisruptionTarget" and condition["status"] == "True":
            return f"{condition.get('reason')}: {condition.get('message', '')}"
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return str(condition.get("message") or condition.get("reason", ""))
    for row in status.get("containerStatuses", ()):
        if waiting := row["state"].get("waiting"):
            return ": ".join(filter(None, (waiting.get("reason"), waiting.get("message"))))
        ended = row["state"].get("terminated")
        if ended and ended["exitCode"]:
            how = f"{ended.get('reason')} with exit status {ended['exitCode']}"
            return ": ".join(filter(None, (how, last_line(ended.get("message") or ""))))
    return str(status.get("message") or status.get("reason") or "")


def last_line(text: str) -> str:
    """The last line of what a log ends with."""
    return "".join(text.strip().splitlines()[-1:])


def advice(text: str) -> str:
    """What a person can do about it; "" where that is not known."""
    for words, deed in _ADVICE:
        if words in text.lower():
            return deed
    reason = text.partition(":")[0]
    return HOPELESS.get(reason, "")


def hopeless(standing: Standing) -> str:
    """What keeps a pod from starting that another attempt will not mend; "" for nothing."""
    for pod in standing.pods:
        reason = reason_of(pod)
        if reason.partition(":")[0] in HOPELESS:
            return f"{part_of(pod)}: {reason}: {advice(reason)}"
    return ""


def obstacle(there: There, standing: Standing) -> str:
    """What keeps a run from going on, with what to do about it; "" where nothing is known."""
    if standing.suspended:
        if not standing.queue:
            return "stopped"
        return f"waits in Kueue's queue {standing.queue}: see `kubectl get workloads`"
    chief = standing.latest(CHIEF)
    words = (chief and reason_of(chief)) or standing.failure or refused_pods(there)
    if words:
        return ": ".join(filter(None, (words, advice(words))))
    if not standing.begins:
        return ""
    # On KubeRay the search waits for all pods.
    for pod in standing.pods:
        if words := reason_of(pod):
            return ": ".join(filter(None, (f"{part_of(pod)}: {words}", advice(words))))
    failed = (standing.chief or {}).get("status", {}).get("failed", 0)
    return f"failed {failed} times so far, and KubeRay tries again" if failed else ""


def refused_pods(there: There) -> str:
    """Why the cluster makes no pods of a run's objects, in its own words; "" where it does."""
    begins = object_name(there.id)
    fields = "type=Warning,involvedObject.kind!=Pod"
    events = there.connection.every("Event", field_selector=fields)
    for event in sorted(events, key=_time, reverse=True):
        name = event["involvedObject"]["name"]
        makes_none = str(event["reason"]).startswith(("FailedCreate", "FailedToCreate", "Invalid"))
        # Said of its own second attempt, where the first one was made after all.
        if _THERE in event["message"]:
            continue
        if makes_none and (name == begins or name.startswith(f"{begins}-")):
            return str(event["message"])
    return ""
