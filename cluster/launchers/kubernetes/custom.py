"""Calls for kinds that are not Kubernetes's own, with the arguments of those for its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# Group, version and plural, and who brings the kind.
CUSTOM = {
    "RayJob": ("ray.io", "v1", "rayjobs"),
    "ServiceMonitor": ("monitoring.coreos.com", "v1", "servicemonitors"),
}
BROUGHT_BY = {"RayJob": "KubeRay's operator", "ServiceMonitor": "Prometheus's operator"}


def custom_call(api: Any, verb: str, kind: str) -> Callable[..., Any]:
    """The call of ``verb``, such as "create_namespaced", for objects of ``kind``.

    ``api`` is the client's CustomObjectsApi.
    """
    group, version, plural = CUSTOM[kind]
    call = getattr(api, f"{verb.replace('read', 'get')}_custom_object")

    def of_all(namespace: str, *rest: Any, **query: Any) -> Any:
        return call(group, version, namespace, plural, *rest, **query)

    def of_one(name: str, namespace: str, *rest: Any, **query: Any) -> Any:
        return call(group, version, namespace, plural, name, *rest, **query)

    return of_all if verb.startswith(("create", "list")) else of_one
