"""Making a run on a cluster, or attaching to it: whole or not at all, and never twice."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Sequence

from cluster.launchers.kubernetes.applied import told_request
from cluster.launchers.kubernetes.connection import Connection
from cluster.launchers.kubernetes.obstacles import advice, hopeless, refused_pods
from cluster.launchers.kubernetes.patience import Patience
from cluster.launchers.kubernetes.render import is_chief
from cluster.launchers.kubernetes.standing import Standing, There, claim_of, lacks_room
from cluster.launchers.kubernetes.templates import Manifest, templates_of
from cluster.launchers.kubernetes.viewer import IMAGE
from hpo.errors import PlaceError, RunError, TuneFleetError
from hpo.run import SearchRequest

# Where an object says which search it is of, so that another is not taken for it.
REQUEST = "tunefleet.dev/request"
_LOOK_S = 0.5
# What is wrong with an image or a quota shows within seconds; a long pull is nothing wrong.
_FIRST_LOOK_S = 6.0
# A loaded cluster takes longer until anything shows at all.
_FIRST_SIGN_S = 60.0
# What is wrong with one of a thousand pods is wrong with the first of them.
_SOME = 20
# The volume claim first: whoever makes it makes the run. The Jobs last, when all is there.
_ORDER = ("PersistentVolumeClaim", "Secret", "ConfigMap", "ServiceAccount", "NetworkPolicy")
_LAST = ("Service", "PodDisruptionBudget", "ServiceMonitor", "Job", "RayJob")


def submit(
    there: There,
    manifests: Sequence[Manifest],
    request: SearchRequest,
    check: Callable[[], None],
) -> bool:
    """Makes the run, after ``check``; False where it was there, by the same request.

    What was there in part, since an earlier call was cut off, is made whole. Raises RunError
    where the id is another request's, and takes everything back where a part is refused or
    no pod can start.
    """
    connection = there.connection
    attached = _is_there(there, request)
    if not attached:
        check()
    notes = {REQUEST: json.dumps(dataclasses.asdict(request)), IMAGE: _image(manifests)}
    ordered = sorted([_marked(manifest, notes) for manifest in manifests], key=_place)
    # An object that the cluster refuses is found before the first is made.
    for manifest in ordered:
        connection.create(manifest, dry_run=True)
    made: list[Manifest] = []
    try:
        for manifest in ordered:
            if connection.create(manifest):
                made.append(manifest)
            elif manifest["kind"] == "PersistentVolumeClaim":
                # Of two at once, one makes it; the other attaches.
                attached = _is_there(there, request)
        if made:
            _await_start(there)
    except BaseException:
        if not attached:
            _take_back(connection, made)
        raise
    return not attached


def _place(manifest: Manifest) -> int:
    return (*_ORDER, *_LAST).index(manifest["kind"])


def _image(manifests: Sequence[Manifest]) -> str:
    (chief,) = [m for m in manifests if templates_of(m) and is_chief(m)]
    template, _ = templates_of(chief)[0]
    return str(template["spec"]["containers"][0]["image"])


def _marked(manifest: Manifest, notes: dict[str, str]) -> Manifest:
    """The manifest with ``notes`` on it, where it outlives a submission."""
    if manifest["kind"] not in ("Job", "RayJob", "PersistentVolumeClaim"):
        return manifest
    metadata = manifest["metadata"]
    annotations = {**metadata.get("annotations", {}), **notes}
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}


def request_of(manifest: Manifest) -> SearchRequest | None:
    """The request noted on an object; None where none is, as on one applied by hand."""
    text = manifest["metadata"].get("annotations", {}).get(REQUEST)
    return SearchRequest(**json.loads(text)) if text else None


def _is_there(there: There, request: SearchRequest) -> bool:
    """Whether the run was made before; RunError where that was another one."""
    connection, run_id = there.connection, there.id
    found = connection.read("PersistentVolumeClaim", claim_of(run_id))
    if found is None:
        return False
    before = request_of(found)
    if before is None:
        raise RunError(
            f"run {run_id!r} in {connection.namespace} was applied by hand: give another --id"
        )
    if differing := request.differences(before):
        raise RunError(
            f"run {run_id!r} was made by another request (other {', '.join(differing)}): "
            "give another --id, or the same request"
        )
    return True


def _await_start(there: There) -> None:
    """Looks whether pods start; PlaceError where they cannot without another request.

    Ends once the chief runs, or once nothing more shows for some seconds.
    """
    patience = Patience(_FIRST_SIGN_S)
    while True:
        standing = there.look(_SOME)
        if words := hopeless(standing):
            raise PlaceError(f"{words} (nothing was left in the cluster)")
        if not standing.pods and (words := refused_pods(there)):
            hint = advice(words)
            words = f"{words}: {hint}" if hint else words
            raise PlaceError(f"{words} (nothing was left in the cluster)")
        if standing.serving() or standing.ended or standing.suspended:
            return
        over = patience.is_over(standing.versions)
        if over or (_shows(standing) and patience.quiet_for(_FIRST_LOOK_S)):
            return
        time.sleep(_LOOK_S)


def _shows(standing: Standing) -> bool:
    """Whether each pod shows how it fares: its node has it in hand, or there is none for it."""
    fares = ("containerStatuses" in pod["status"] or lacks_room(pod) for pod in standing.pods)
    return bool(standing.pods) and all(fares)


def _take_back(connection: Connection, made: Sequence[Manifest]) -> None:
    for manifest in reversed(made):
        try:
            connection.delete(manifest["kind"], manifest["metadata"]["name"])
        except TuneFleetError:
            # What is wrong is being told already; the rest goes on being taken away.
            continue


def chief_request(there: There) -> SearchRequest | None:
    """The request of a run, from its chief's Job, its RayJob or its volume claim."""
    if chief := there.connection.read(there.owner, there.owner_name):
        return request_of(chief) or told_request(chief)
    claim = there.connection.read("PersistentVolumeClaim", claim_of(there.id))
    return request_of(claim) if claim else None
