"""A small pod that has a run's folder while no chief has it: what reads, and TensorBoard."""

from __future__ import annotations

import time

import yaml

from cluster.launchers.kubernetes.kustomize import FILES
from cluster.launchers.kubernetes.obstacles import advice, hopeless, reason_of
from cluster.launchers.kubernetes.patience import Patience
from cluster.launchers.kubernetes.render import INSTANCE, object_name
from cluster.launchers.kubernetes.standing import Standing, There, claim_of
from cluster.launchers.kubernetes.templates import Manifest, templates_of
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


def ensure_viewer(there: There, standing: Standing) -> Manifest:
    """The viewer, running; it is made where there is none.

    Raises PlaceError where it does not start.
    """
    name = object_name(there.id, VIEWER)
    found = standing.latest(VIEWER)
    if found and found["status"].get("phase") in ("Succeeded", "Failed"):
        remove_viewer(there)
        found = None
    if found is None:
        image, policy = _image(there, standing)
        there.connection.create(viewer_of(there.id, image, policy))
    patience = Patience(_START_S)
    while True:
        standing = there.look()
        if pod := standing.serving(VIEWER):
            return pod
        pod = standing.latest(VIEWER)
        reason = reason_of(pod) if pod else ""
        failed = pod is not None and pod["status"].get("phase") == "Failed"
        if failed or hopeless(standing, VIEWER) or patience.is_over(standing.versions):
            hint = advice(reason) or f"see `kubectl describe pod {name}`"
            raise PlaceError(
                f"the pod {name}, which reads the run, does not start: {reason}: {hint}"
            )
        time.sleep(_LOOK_S)


def remove_viewer(there: There) -> None:
    """Takes the viewer away, so that a chief can have the volume."""
    name = object_name(there.id, VIEWER)
    there.connection.delete("Pod", name, grace_s=5)
    there.connection.await_gone("Pod", name, _GONE_S)


def _image(there: There, standing: Standing) -> tuple[str, str | None]:
    if standing.chief:
        template, _ = templates_of(standing.chief)[0]
        container = template["spec"]["containers"][0]
        return container["image"], container.get("imagePullPolicy")
    claim = there.connection.read("PersistentVolumeClaim", claim_of(there.id))
    image = (claim or {"metadata": {}})["metadata"].get("annotations", {}).get(IMAGE)
    if not image:
        raise RunError(f"run {there.id!r} was applied by hand and is gone: apply it again")
    return image, None
