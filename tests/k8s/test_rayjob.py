"""A search on a Ray cluster that KubeRay's own operator makes, by its own kinds."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from cluster.launchers.kubernetes.templates import templates_of
from tests.k8s.conftest import Namespace
from tests.k8s.control_plane import ControlPlane
from tests.live import STUDIES, wait_until
from tests.test_kubernetes_files import FILES, Manifest, kustomized, one

pytestmark = pytest.mark.k8s

SLOW = str(STUDIES / "slow.py")


@pytest.fixture(scope="module")
def kuberay(plane: ControlPlane) -> ControlPlane:
    plane.start_kuberay()
    return plane


@pytest.fixture
def rays(kuberay: ControlPlane, space: Namespace) -> Namespace:
    return space


def dry_run(space: Namespace, manifests: list[Manifest], check: bool = True) -> str:
    words = ("apply", "--dry-run=server", "--validate=strict", "--warnings-as-errors", "-f", "-")
    return space.kubectl(*words, said=yaml.safe_dump_all(manifests), check=check)


@pytest.mark.parametrize("name", ["rayjob", "rayjob/base"])
def test_it_is_accepted_without_a_warning(rays: Namespace, name: str) -> None:
    manifests = kustomized(FILES / name)
    assert dry_run(rays, manifests).count("server dry run") == len(manifests)
    for template, _ in templates_of(one(manifests, "RayJob", "chief")):
        pod = {**copy.deepcopy(template), "apiVersion": "v1", "kind": "Pod"}
        pod["metadata"]["name"] = "tried"
        dry_run(rays, [pod])


def _misspelt(spec: Any) -> None:
    spec["rayClusterSpec"]["autoscalerOptions"]["idleTimeoutSecs"] = 60


def _no_such_mode(spec: Any) -> None:
    spec["rayClusterSpec"]["authOptions"]["mode"] = "password"


def _a_number_for_a_word(spec: Any) -> None:
    spec["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0


MISTAKES = {_misspelt: "idleTimeoutSecs", _no_such_mode: "password", _a_number_for_a_word: "string"}


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__.strip("_"))
def test_a_planted_mistake_is_refused(rays: Namespace, mistake: Callable[[Any], None]) -> None:
    job = one(kustomized(FILES / "rayjob"), "RayJob", "chief")
    mistake(job["spec"])
    said = dry_run(rays, [job], check=False)
    assert "server dry run" not in said and MISTAKES[mistake] in said, said


def submitted(space: Namespace, run_id: str, *words: str) -> str:
    """The handle of a run with pods small enough for this machine."""
    own = ["--on", "rayjob", "--namespace", space.name, "--id", run_id]
    space.launch("submit", SLOW, *own, "--cpus=1", "--memory=2Gi", "--storage=1Gi", *words)
    return f"rayjob://{space.name}/{run_id}"


def ray_pod(space: Namespace, run_id: str, part: str) -> Any:
    labels = f"app.kubernetes.io/instance={run_id},app.kubernetes.io/component={part}"
    found = space.get("pods", "-l", labels)["items"]
    return found[0] if found else None


def test_a_search_from_submission_to_its_results(rays: Namespace) -> None:
    handle = submitted(rays, "rays", "--trials=6", "--workers=2", "--seed=1")
    for part, name in (("chief", "chief"), ("worker", "worker")):
        pod = wait_until(lambda part=part: ray_pod(rays, "rays", part), f"a pod of {part}", 60)
        (container,) = [row for row in pod["spec"]["containers"] if row["name"] == name]
        variables = {row["name"]: row for row in container["env"]}
        # Ray asks for a token, which is drawn for this cluster alone.
        assert variables["RAY_AUTH_MODE"]["value"] == "token"
        secret = variables["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"]
        assert rays.get("secret", secret["name"])["data"][secret["key"]]
    wait_until(lambda: deployment(rays, "rays") == "Complete", "the end of the search", 300)
    text = rays.launch("status", handle, "--json").stdout
    assert '"state": "DONE"' in text and '"completed": 6' in text


def deployment(space: Namespace, run_id: str) -> str:
    """How KubeRay says that the search stands."""
    status = space.get("rayjob", f"tunefleet-{run_id}").get("status", {})
    return str(status.get("jobDeploymentStatus", ""))
