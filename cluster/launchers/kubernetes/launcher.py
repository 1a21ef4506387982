"""Kubernetes as a place to search in."""

from __future__ import annotations

import argparse

import yaml

from cluster.launchers.base import Launcher
from cluster.launchers.kubernetes import asked
from cluster.launchers.kubernetes.render import render
from cluster.launchers.kubernetes.spec import KubernetesSpec


class Kubernetes(Launcher):
    """Two Jobs, a chief's and its workers', and what they need."""

    scheme = "k8s"

    def render(self, args: argparse.Namespace) -> int:
        """Prints the manifests as YAML, all but the Secret."""
        search, _ = asked.search_of(args)
        manifests = render(search, KubernetesSpec.from_options(args))
        print(yaml.safe_dump_all(manifests, sort_keys=False), end="")
        return 0
