"""The API server, through connections that stay open: a process for each look is dear."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import urllib3
import yaml

# Of kinds that are not of the first group.
_GROUPS = {
    "jobs": "apis/batch/v1",
    "rayjobs": "apis/ray.io/v1",
    "customresourcedefinitions": "apis/apiextensions.k8s.io/v1",
}
# Only an API server that hangs takes so long for an answer.
_ANSWER_S = 240.0


class Api:
    """Asks the cluster that ``kubeconfig`` names."""

    def __init__(self, kubeconfig: pathlib.Path) -> None:
        whole = yaml.safe_load(kubeconfig.read_text())
        cluster, user = whole["clusters"][0]["cluster"], whole["users"][0]["user"]
        self._server = cluster["server"]
        self._pool = urllib3.PoolManager(
            ca_certs=cluster["certificate-authority"],
            cert_file=user["client-certificate"],
            key_file=user["client-key"],
            timeout=_ANSWER_S,
            retries=False,
        )

    def answers(self) -> bool:
        """Whether it is up."""
        try:
            return self._pool.request("GET", f"{self._server}/readyz").status == 200
        except urllib3.exceptions.HTTPError:
            return False

    def one(self, kind: str, name: str, namespace: str = "") -> Any:
        """An object; None where there is none of that name."""
        return self._ask("GET", f"{_path(kind, namespace)}/{name}")

    def every(self, kind: str, namespace: str = "", labels: str = "") -> list[Any]:
        """The objects of a kind that carry ``labels``; none where there is no such kind."""
        found = self._ask("GET", _path(kind, namespace), labelSelector=labels)
        rows: list[Any] = found["items"] if found else []
        return rows

    def kill_pods(self, namespace: str) -> None:
        """Takes all pods away at once, whatever they are about, and what would make others.

        A Job that cannot make others, since its namespace goes, would hold those that went.
        """
        self._ask("DELETE", _path("jobs", namespace), propagationPolicy="Background")
        self._ask("DELETE", _path("pods", namespace), gracePeriodSeconds="0")

    def _ask(self, method: str, path: str, **query: str) -> Any:
        answer = self._pool.request(method, f"{self._server}/{path}", fields=query)
        if answer.status == 404:
            return None
        assert answer.status < 300, f"{method} {path}: {answer.status} {answer.data[:500]!r}"
        return json.loads(answer.data)


def _path(kind: str, namespace: str) -> str:
    within = f"namespaces/{namespace}/" if namespace else ""
    return f"{_GROUPS.get(kind, 'api/v1')}/{within}{kind}"
