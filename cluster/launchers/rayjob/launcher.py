"""KubeRay as a place to search in."""

from __future__ import annotations

import argparse

from cluster import options
from cluster.launchers.base import Handle
from cluster.launchers.kubernetes import asked
from cluster.launchers.kubernetes.checks import RAY_RIGHTS
from cluster.launchers.kubernetes.connection import Connection
from cluster.launchers.kubernetes.launcher import Kubernetes
from cluster.launchers.kubernetes.render import Search
from cluster.launchers.kubernetes.spec import KubernetesSpec
from cluster.launchers.kubernetes.templates import Manifest
from cluster.launchers.rayjob.changes import RayChanger
from cluster.launchers.rayjob.render import KIND, LONGEST_ID, render
from hpo.errors import UsageError
from hpo.run import SearchRequest


class RayJob(Kubernetes):
    """A RayJob: KubeRay makes a Ray cluster for one search, and takes it away."""

    scheme = "rayjob"
    engine = "ray"
    takes = tuple(name for name in Kubernetes.takes if name not in ("monitoring", "store"))
    owner = KIND
    rights = RAY_RIGHTS

    def check_engine(self, engine: str) -> None:
        """Raises UsageError for any engine but Ray's."""
        if engine != self.engine:
            raise UsageError(
                f"engine {engine} does not run on a Ray cluster: take --engine ray, or --on k8s"
            )

    def _asked(self, args: argparse.Namespace) -> tuple[Search, SearchRequest]:
        for engine in options.typed_again(args.arguments).get("--engine", []):
            self.check_engine(engine)
        args.engine = self.engine
        search, request = asked.search_of(args)
        if len(search.id) > LONGEST_ID and args.id:
            raise UsageError(
                f"id {search.id!r} has {len(search.id)} letters, and KubeRay takes {LONGEST_ID}: "
                "give a shorter --id"
            )
        return search, request

    def _render(self, search: Search, spec: KubernetesSpec) -> list[Manifest]:
        return render(search, spec)

    def _secrets(self, run_id: str) -> list[Manifest]:
        # KubeRay makes Ray's token; the search's own never leaves the head.
        return []

    def _changer(self, connection: Connection, handle: Handle) -> RayChanger:
        return RayChanger(connection, handle)
