"""A small pod that has a run's folder while no chief has it: what reads, and TensorBoard."""

from __future__ import annotations

import time

import yaml

from cluster.launchers.kubernetes.connection import Connection
from cluster.launchers.kubernetes.kustomize import FILES, Manifest
from cluster.launchers.kubernetes.pods import Standing, advice, claim_of, look, reason_of
from cluster.launchers.kubernetes.render import INSTANCE, object_name
from hpo.errors import PlaceError, RunError

VIEWER = "viewer"
# Where the image of a run stands once its Jobs are gone.
IMAGE = "tunefleet.dev/image"
_LOOK_S = 0.5
_START_S = 180.0
_GONE_S = 90.0


def viewer_of(run_id: str, image: str, pull_policy: str | None) -> Manifest:
    """The manifest of a run's viewer."""
    pod: Manifest = yaml.safe_load((FILES / "viewer" / "pod.yaml").read_text())
    pod["metadata"]["name"] = object_name(run_id, VIEWER)
    pod["metadata"]["labels"][INSTANCE] = run_id
    (volume,) = [v for v in pod["spec"]["volumes"] if v["name"] == "runs"]
    volume["persistentVolumeClaim"]["claimName"] = claim_of(run_id)
    (container,) = pod["spec"]["containers"]
    container["image"] = image
    if pull_policy:
        container["imagePullPolicy"] = pull_policy
    for row in container["env"]:
        if row["name"] == "RUN_ID":
            row["value"] = run_id
    return pod


def ensure_viewer(connection: Connection, run_id: str, standing: Standing) -> Manifest:
    """The viewer, running; it is made where there is none.

    Raises PlaceError where it does not start.
    """
    name = object_name(run_id, VIEWER)
    found = standing.latest(VIEWER)
    if found and found["status"].get("phase") in ("Succeeded", "Failed"):
        remove_viewer(connection, run_id)
        found = None
    if found is None:
        image, policy = _image(connection, run_id, standing)
        connection.create(viewer_of(run_id, image, policy))
    deadline = time.monotonic() + _START_S
    while True:
        standing = look(connection, run_id)
        if pod := standing.serving(VIEWER):
            return pod
        pod = standing.latest(VIEWER)
        reason = reason_of(pod) if pod else ""
        if time.monotonic() > deadline or (pod and pod["status"].get("phase") == "Failed"):
            hint = advice(reason) or f"see `kubectl describe pod {name}`"
            raise PlaceError(
                f"the pod {name}, which reads the run, does not start: {reason}: {hint}"
            )
        time.sleep(_LOOK_S)


def remove_viewer(connection: Connection, run_id: str) -> None:
    """Takes the viewer away, so that a chief can have the volume."""
    name = object_name(run_id, VIEWER)
    connection.delete("Pod", name, grace_s=5)
    connection.await_gone("Pod", name, _GONE_S)


def _image(connection: Connection, run_id: str, standing: Standing) -> tuple[str, str | None]:
    if standing.chief:
        (container,) = standing.chief["spec"]["template"]["spec"]["containers"]
        return container["image"], container.get("imagePullPolicy")
    claim = connection.read("PersistentVolumeClaim", claim_of(run_id))
    image = (claim or {"metadata": {}})["metadata"].get("annotations", {}).get(IMAGE)
    if not image:
        raise RunError(f"run {run_id!r} was applied by hand and its Jobs are gone: apply it again")
    return image, None
