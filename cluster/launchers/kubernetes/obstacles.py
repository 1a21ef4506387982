"""What is the matter with a run's pods, in the cluster's own words, and what helps."""

from __future__ import annotations

import dataclasses
from typing import Any

from cluster.launchers.kubernetes.connection import Connection
from cluster.launchers.kubernetes.render import CHIEF, object_name
from cluster.launchers.kubernetes.standing import Standing, There, last_line, part_of
from cluster.launchers.kubernetes.templates import Manifest

# Reasons of a container that waits which another attempt will not mend by itself.
HOPELESS = {
    "ErrImagePull": "is the image pushed, and may the cluster read it? See --image",
    "ImagePullBackOff": "is the image pushed, and may the cluster read it? See --image",
    "ErrImageNeverPull": "load the image into the node, or leave out --pull-policy Never",
    "InvalidImageName": "give a name such as registry.example/tunefleet:1",
    "CreateContainerConfigError": "see `kubectl describe pod`",
}
_THERE = "already exists"
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


def advice(text: str) -> str:
    """What a person can do about it; "" where that is not known."""
    for words, deed in _ADVICE:
        if words in text.lower():
            return deed
    reason = text.partition(":")[0]
    return HOPELESS.get(reason, "")


def hopeless(standing: Standing, part: str = "") -> str:
    """What keeps a pod from starting that another attempt will not mend; "" for nothing.

    ``part`` names the pods that count; "" stands for all.
    """
    for pod in standing.pods:
        if part and part_of(pod) != part:
            continue
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
