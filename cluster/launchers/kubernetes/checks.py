"""What a namespace has and lacks for a search, asked before anything is made there."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cluster.launchers.kubernetes.connection import Connection
from cluster.launchers.kubernetes.custom import CUSTOM
from cluster.launchers.kubernetes.render import COMPONENT, INSTANCE, object_name
from cluster.launchers.kubernetes.spec import KubernetesSpec
from cluster.launchers.kubernetes.templates import Manifest, containers_of, templates_of
from hpo.errors import PlaceError, TuneFleetError

# What `launch.py` does there, whatever a run's own kind is.
_RIGHTS = (
    ("create", "pods", ""),
    ("list", "pods", ""),
    ("delete", "pods", ""),
    ("create", "pods/exec", ""),
    ("get", "pods/log", ""),
    ("create", "pods/portforward", ""),
    ("create", "configmaps", ""),
    ("create", "persistentvolumeclaims", ""),
    ("get", "persistentvolumeclaims", ""),
    ("create", "networkpolicies", "networking.k8s.io"),
    ("list", "events", ""),
    ("list", "resourcequotas", ""),
)
# And what it does with that.
RIGHTS = (
    *((verb, "jobs", "batch") for verb in ("create", "patch", "delete", "list")),
    *_RIGHTS,
    ("create", "secrets", ""),
    ("create", "services", ""),
    ("create", "serviceaccounts", ""),
    ("create", "poddisruptionbudgets", "policy"),
)
RAY_RIGHTS = (
    *((verb, "rayjobs", "ray.io") for verb in ("create", "get", "patch", "delete", "list")),
    *_RIGHTS,
)
_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"


def check_before(
    connection: Connection, manifests: Sequence[Manifest], spec: KubernetesSpec
) -> None:
    """Raises PlaceError or UsageError where the search could not run there, as asked.

    Pods are tried as pods: of a Job the cluster says only later what is wrong with them.
    """
    made = [row for manifest in manifests for row in templates_of(manifest)]
    for template, _ in made:
        connection.create(_pod_of(template), dry_run=True)
    if words := over_quota(connection, made):
        raise PlaceError(words)
    if spec.gpus and (words := no_gpus(connection, spec)):
        raise PlaceError(words)


def _pod_of(template: Manifest) -> Manifest:
    made = copy.deepcopy(template)
    # It is made with the rest.
    made["spec"].pop("serviceAccountName", None)
    labels = made["metadata"]["labels"]
    name = f"{object_name(labels[INSTANCE], labels[COMPONENT])}-0"
    return {
        **made,
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**made["metadata"], "name": name},
    }


def over_quota(connection: Connection, made: Sequence[tuple[Manifest, int]]) -> str:
    """Which quota can never hold all pods of the templates at once; "" for none."""
    from kubernetes.utils.quantity import parse_quantity

    wanted = dict(_asked(made))
    for quota in connection.every("ResourceQuota"):
        for name, limit in quota["status"].get("hard", quota["spec"].get("hard", {})).items():
            asked = wanted.get(name)
            if asked is not None and asked > parse_quantity(limit):
                return (
                    f"quota {quota['metadata']['name']} in {connection.namespace} allows "
                    f"{name}={limit} and the search asks for {asked:f}: take fewer or smaller "
                    "--workers, or have the quota raised"
                )
    return ""


def _asked(made: Sequence[tuple[Manifest, int]]) -> Iterator[tuple[str, Any]]:
    """What all pods of the templates ask for together, by the names that a quota has for it."""
    from kubernetes.utils.quantity import parse_quantity

    total: dict[str, Any] = {"pods": 0, "count/pods": 0}
    for template, count in made:
        total["pods"] += count
        for container in containers_of(template):
            resources = container["resources"]
            requests = {**resources.get("limits", {}), **resources.get("requests", {})}
            for kind, rows in (("requests", requests), ("limits", resources.get("limits", {}))):
                for name, quantity in rows.items():
                    key = f"{kind}.{name}"
                    total[key] = total.get(key, 0) + count * parse_quantity(quantity)
    total["count/pods"] = total["pods"]
    for name in ("cpu", "memory"):
        total[name] = total.get(f"requests.{name}", 0)
    yield from total.items()


def no_gpus(connection: Connection, spec: KubernetesSpec) -> str:
    """Why no node could hold a worker's GPUs; "" where one could, or nodes are not to be seen."""
    nodes = connection.nodes()
    if nodes is None:
        return ""
    there = [int(node["status"].get("allocatable", {}).get(spec.gpu_resource, 0)) for node in nodes]
    if max(there, default=0) >= spec.gpus:
        return ""
    known = sorted(gpu_resources(nodes))
    have = f"they have {', '.join(known)}" if known else "they have no GPUs"
    if any(there):
        have = f"they have {max(there)} each at most"
    return (
        f"no node has {spec.gpus} {spec.gpu_resource}: {have}: see --gpu-resource and "
        "--gpus-per-worker, or --unchecked where an autoscaler brings such nodes"
    )


def gpu_resources(nodes: Sequence[Manifest]) -> dict[str, int]:
    """What nodes have that is named like a device, and how many in all."""
    found: dict[str, int] = {}
    for node in nodes:
        for name, count in node["status"].get("allocatable", {}).items():
            if "/" in name and count.isdecimal() and int(count):
                found[name] = found.get(name, 0) + int(count)
    return found


@dataclasses.dataclass(frozen=True)
class Examined:
    """What `doctor` found: rows to show, and what is missing."""

    rows: list[tuple[str, str]]
    missing: list[str]


def examine(
    connection: Connection,
    spec: KubernetesSpec,
    manifests: Sequence[Manifest],
    rights: Sequence[tuple[str, str, str]],
) -> Examined:
    """Looks at a namespace as a search with ``spec`` would meet it."""
    rows: list[tuple[str, str]] = [("cluster", connection.host)]
    missing: list[str] = []
    labels = connection.namespace_labels()
    level = "not to be seen with your rights"
    if labels is not None:
        level = labels.get("pod-security.kubernetes.io/enforce", "privileged")
    rows += [("namespace", connection.namespace), ("pod security", level)]
    lacking = [
        f"{verb} {resource}"
        for verb, resource, group in rights
        if not connection.may(verb, resource, group)
    ]
    rows.append(("rights", "all that are needed" if not lacking else "not all"))
    missing += [f"the right to {text}" for text in lacking]
    rows += [
        (f"quota {quota['metadata']['name']}", _usage(quota))
        for quota in ([] if "list resourcequotas" in lacking else connection.every("ResourceQuota"))
    ]
    nodes = connection.nodes()
    if nodes is None:
        rows.append(("nodes", "not to be seen with your rights"))
    else:
        ready = sum(map(_is_ready, nodes))
        rows.append(("nodes", f"{ready} of {len(nodes)} ready"))
        gpus = gpu_resources(nodes)
        rows.append(("gpus", ", ".join(f"{n} {c}" for n, c in gpus.items()) or "none"))
        rows.append(("image", _image(nodes, spec.worker_image)))
    rows.append(("storage class", _storage_class(connection, spec, missing)))
    for kind in sorted({manifest["kind"] for manifest in manifests} & CUSTOM.keys()):
        try:
            connection.every(kind, limit=1)
        except TuneFleetError as error:
            missing.append(str(error))
    if not lacking:
        try:
            check_before(connection, manifests, spec)
        except TuneFleetError as error:
            missing.append(str(error))
    return Examined(rows, missing)


def _usage(quota: Mapping[str, Any]) -> str:
    used = quota["status"].get("used", {})
    hard = quota["status"].get("hard", {})
    return ", ".join(f"{name} {used.get(name, 0)} of {limit}" for name, limit in hard.items())


def _is_ready(node: Manifest) -> bool:
    return any(
        condition["type"] == "Ready" and condition["status"] == "True"
        for condition in node["status"].get("conditions", ())
    )


def _image(nodes: Sequence[Manifest], image: str) -> str:
    count = sum(
        any(image in name for row in node["status"].get("images", ()) for name in row["names"])
        for node in nodes
    )
    return f"{image}: on {count} nodes, others pull it"


def _storage_class(connection: Connection, spec: KubernetesSpec, missing: list[str]) -> str:
    from kubernetes.client import ApiException

    try:
        answer = connection.storage().list_storage_class(_preload_content=False)
    except ApiException:
        return "not to be seen with your rights"
    found = {row["metadata"]["name"]: row for row in json.loads(answer.data)["items"]}
    default = [
        name
        for name, row in found.items()
        if row["metadata"].get("annotations", {}).get(_DEFAULT_CLASS) == "true"
    ]
    if spec.storage_class is not None and spec.storage_class not in found:
        missing.append(f"the storage class {spec.storage_class}: there are {', '.join(found)}")
    if spec.storage_class is None and not default:
        missing.append("a default storage class: give --storage-class")
    return ", ".join(found) + (f" (default {', '.join(default)})" if default else "")
