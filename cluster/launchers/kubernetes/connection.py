"""One namespace of one cluster, as kubectl's own configuration names it."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

from cluster.launchers.kubernetes.custom import BROUGHT_BY, CUSTOM, custom_call
from cluster.launchers.kubernetes.patience import Patience
from cluster.launchers.kubernetes.render import COMPONENT, INSTANCE
from cluster.launchers.kubernetes.templates import Manifest
from hpo.errors import PlaceError, TuneFleetError, UsageError
from hpo.registry import suggest

_LOOK_S = 0.5
# How long the API server may take for one answer.
_ANSWER_S = 60.0
_SEEN_FROM_INSIDE = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

# The kinds that a search is made of, with the client's own names for them.
_KINDS = {
    "ConfigMap": ("CoreV1Api", "config_map"),
    "Job": ("BatchV1Api", "job"),
    "NetworkPolicy": ("NetworkingV1Api", "network_policy"),
    "PersistentVolumeClaim": ("CoreV1Api", "persistent_volume_claim"),
    "Pod": ("CoreV1Api", "pod"),
    "PodDisruptionBudget": ("PolicyV1Api", "pod_disruption_budget"),
    "Secret": ("CoreV1Api", "secret"),
    "Service": ("CoreV1Api", "service"),
    "ServiceAccount": ("CoreV1Api", "service_account"),
    # What is only read.
    "Event": ("CoreV1Api", "event"),
    "ResourceQuota": ("CoreV1Api", "resource_quota"),
}


class Connection:
    """What is asked of the API server. Objects are plain mappings, as their YAML has them.

    Raises UsageError where kubectl's configuration does not name a cluster.
    """

    def __init__(self, args: argparse.Namespace, namespace: str | None = None) -> None:
        from kubernetes import client

        self._client = client
        self.api, own = _configured(args)
        self.namespace: str = namespace or own
        self.host = self.api.configuration.host

    def create(self, manifest: Manifest, dry_run: bool = False) -> bool:
        """Makes an object; False where there is one of its name."""
        call = self._call("create_namespaced", manifest["kind"])
        extra = {"dry_run": "All"} if dry_run else {}
        with self.plainly(manifest["kind"]):
            try:
                call(self.namespace, manifest, **extra)
            except self._client.ApiException as error:
                if error.status == 409 and _reason(error) == "AlreadyExists":
                    return False
                raise
        return True

    def read(self, kind: str, name: str) -> Manifest | None:
        """An object; None where there is none of that name."""
        with self.plainly(kind):
            try:
                found: Manifest = self._json(
                    self._call("read_namespaced", kind), name, self.namespace
                )
                return found
            except self._client.ApiException as error:
                if error.status == 404 and _reason(error) == "NotFound":
                    return None
                raise

    def every(self, kind: str, labels: str = "", **query: Any) -> list[Manifest]:
        """The objects of a kind that carry ``labels``."""
        with self.plainly(kind):
            call = self._call("list_namespaced", kind)
            found = self._json(call, self.namespace, label_selector=labels, **query)
        # A list says once for all what its items are.
        own = {"apiVersion": found["apiVersion"], "kind": kind}
        return [own | row for row in found["items"]]

    def of_run(self, kind: str, run_id: str, part: str = "", **query: Any) -> list[Manifest]:
        """The objects of a kind that belong to a run, or to one ``part`` of it."""
        labels = f"{INSTANCE}={run_id}" + (f",{COMPONENT}={part}" if part else "")
        return self.every(kind, labels, **query)

    def namespace_labels(self) -> dict[str, str] | None:
        """The namespace's labels; None where one may not see them.

        Raises UsageError where there is no such namespace.
        """
        with self.plainly():
            try:
                found = self.core().read_namespace(self.namespace)
            except self._client.ApiException as error:
                if error.status == 403:
                    return None
                raise
        return dict(found.metadata.labels or {})

    def nodes(self) -> list[Manifest] | None:
        """The cluster's nodes; None where one may not see them."""
        try:
            rows: list[Manifest] = self._json(self._client.CoreV1Api(self.api).list_node)["items"]
        except self._client.ApiException as error:
            if error.status != 403:
                raise
            return None
        return rows

    def patch(self, kind: str, name: str, changes: Mapping[str, Any]) -> None:
        """Changes fields of an object; RunError's like is left to those who know what it is."""
        with self.plainly(kind):
            self._call("patch_namespaced", kind)(
                name, self.namespace, changes, _content_type="application/merge-patch+json"
            )

    def delete(self, kind: str, name: str, grace_s: int | None = None) -> None:
        """Takes an object away, and what it owns; nothing happens where there is none."""
        extra: dict[str, Any] = {} if grace_s is None else {"grace_period_seconds": grace_s}
        with self.plainly(kind):
            try:
                self._call("delete_namespaced", kind)(
                    name, self.namespace, propagation_policy="Background", **extra
                )
            except self._client.ApiException as error:
                if error.status != 404:
                    raise

    def await_gone(self, kind: str, name: str, seconds: float) -> None:
        """Waits until there is no such object; PlaceError where it stays so long as it is."""
        patience = Patience(seconds)
        while (found := self.read(kind, name)) is not None:
            if patience.is_over(found["metadata"].get("resourceVersion")):
                raise PlaceError(
                    f"{kind} {name} in {self.namespace} does not go away: see "
                    f"`kubectl describe {kind.lower()} {name}`"
                )
            time.sleep(_LOOK_S)

    def may(self, verb: str, resource: str, group: str = "") -> bool:
        """Whether whoever asks may do so in this namespace."""
        name, _, sub = resource.partition("/")
        attributes = {"namespace": self.namespace, "verb": verb, "group": group, "resource": name}
        if sub:
            attributes["subresource"] = sub
        review = {"spec": {"resourceAttributes": attributes}}
        with self.plainly():
            api = self._client.AuthorizationV1Api(self.api)
            return bool(api.create_self_subject_access_review(review).status.allowed)

    def fresh(self) -> Any:
        """A client of its own for a stream, which changes the one that it goes through."""
        return self._client.CoreV1Api(self._client.ApiClient(self.api.configuration))

    def core(self) -> Any:
        """The client for what is not a plain object: logs, the namespace itself."""
        return self._client.CoreV1Api(self.api)

    def storage(self) -> Any:
        """The client for storage classes."""
        return self._client.StorageV1Api(self.api)

    def _call(self, verb: str, kind: str) -> Any:
        if kind in CUSTOM:
            return custom_call(self._client.CustomObjectsApi(self.api), verb, kind)
        api, name = _KINDS[kind]
        return getattr(getattr(self._client, api)(self.api), f"{verb}_{name}")

    @staticmethod
    def _json(call: Any, *arguments: Any, **query: Any) -> Any:
        """An answer as it came: to make objects of a thousand pods takes seconds."""
        answer = call(*arguments, **query, _preload_content=False, _request_timeout=_ANSWER_S)
        return json.loads(answer.data)

    @contextlib.contextmanager
    def plainly(self, kind: str = "") -> Iterator[None]:
        """What the API server or the way to it has against a call, as one line.

        ``kind`` is that of the object which the call is about.
        """
        from urllib3.exceptions import HTTPError

        try:
            yield
        except self._client.ApiException as error:
            raise self._said(error, kind) from error
        except (HTTPError, OSError) as error:
            reason = str(getattr(error, "reason", None) or error).rpartition(": ")[2]
            raise PlaceError(
                f"no cluster answers at {self.host}: {reason}: see `kubectl cluster-info`, "
                "--context and --kubeconfig"
            ) from error

    def _said(self, error: Any, kind: str) -> TuneFleetError:
        body = _body(error)
        said = body.get("message") or error.reason or f"HTTP status {error.status}"
        if error.status == 401:
            return PlaceError(f"the cluster at {self.host} does not know you: log in again")
        if error.status == 404 and not body and kind in BROUGHT_BY:
            return PlaceError(
                f"the cluster at {self.host} has no kind {kind}: have {BROUGHT_BY[kind]} installed"
            )
        if error.status == 404 and "namespaces" in said:
            return UsageError(f"no namespace {self.namespace!r}: make it, or give --namespace")
        if error.status == 403 and "exceeded quota" in said:
            return PlaceError(f"{said}: ask for less, or have the quota raised")
        if error.status == 403 and " cannot " in said:
            return PlaceError(f"{said}: ask for this right; `doctor --on k8s` lists all of them")
        if error.status in (400, 422):
            return UsageError(f"the cluster refuses it: {said}")
        return PlaceError(f"the cluster at {self.host}: {said}")


def _configured(args: argparse.Namespace) -> tuple[Any, str]:
    """The client and the namespace that kubectl would take."""
    from kubernetes import config

    file = None if args.kubeconfig is None else str(args.kubeconfig)
    asked = getattr(args, "namespace", None)
    try:
        contexts, current = config.list_kube_config_contexts(file)
    except config.ConfigException as error:
        if file is None and args.context is None and os.path.exists(_SEEN_FROM_INSIDE):
            from kubernetes import client

            config.load_incluster_config()
            with open(_SEEN_FROM_INSIDE) as inside:
                return client.ApiClient(), asked or inside.read().strip()
        raise UsageError(
            f"no cluster: {error}: set KUBECONFIG, or give --kubeconfig FILE"
        ) from error
    named = {row["name"]: row for row in contexts}
    if args.context is not None and args.context not in named:
        raise UsageError(f"no context {args.context!r}: {suggest(args.context, named)}")
    chosen = named[args.context] if args.context else current
    api = config.new_client_from_config(config_file=file, context=args.context)
    # Whoever waits should hear soon that nobody answers.
    api.configuration.retries = 1
    return api, asked or chosen["context"].get("namespace") or "default"


def _body(error: Any) -> dict[str, Any]:
    try:
        body = json.loads(error.body or "{}")
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _reason(error: Any) -> str:
    return str(_body(error).get("reason", ""))
