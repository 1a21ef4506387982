"""What lies in k8s/, before a real API server in a namespace of the restricted level."""

from __future__ import annotations

import copy
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from tests.integration.test_kubernetes_files import (
    ADDED,
    FILES,
    OVERLAYS,
    Manifest,
    kustomized,
    of_instance,
    one,
)
from tests.k8s.control_plane import ControlPlane
from tests.k8s.namespace import Namespace

# Longer than all waits of one test together: see PATIENCE_S.
pytestmark = [pytest.mark.k8s, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def strict(namespaces: Callable[[], Namespace]) -> Iterator[Namespace]:
    made = namespaces()
    # The kind alone, without its schema: Prometheus's operator is not built here.
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"kind": "ServiceMonitor", "plural": "servicemonitors", "singular": "servicemonitor"}
    kind = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "servicemonitors.monitoring.coreos.com"},
        "spec": {
            "group": "monitoring.coreos.com",
            "scope": "Namespaced",
            "names": names,
            "versions": [version],
        },
    }
    made.plane.add_kinds(yaml.safe_dump(kind))
    yield made
    made.plane.kubectl("delete", "crd", "servicemonitors.monitoring.coreos.com")


def dry_run(space: Namespace, manifests: list[Manifest], check: bool = True) -> str:
    words = ("apply", "--dry-run=server", "--validate=strict", "--warnings-as-errors", "-f", "-")
    return space.kubectl(*words, said=yaml.safe_dump_all(manifests), check=check)


@pytest.mark.parametrize("name", ["base", "viewer", *(f"overlays/{name}" for name in OVERLAYS)])
def test_every_folder_is_accepted_without_a_warning(strict: Namespace, name: str) -> None:
    manifests = kustomized(FILES / name)
    assert dry_run(strict, manifests).count("server dry run") == len(manifests)
    if pods := pods_of(manifests):
        dry_run(strict, pods)


@pytest.mark.parametrize("component", ADDED)
def test_every_component_is_accepted_without_a_warning(
    strict: Namespace, component: str, tmp_path: pathlib.Path
) -> None:
    manifests = of_instance(tmp_path / "k8s", "demo", ["gpu", component])
    assert dry_run(strict, manifests).count("server dry run") == len(manifests)
    dry_run(strict, pods_of(manifests))


def pods_of(manifests: list[Manifest]) -> list[Manifest]:
    """The pods that the Jobs would make: the restricted level is enforced on these alone."""
    made = []
    for job in (m for m in manifests if m["kind"] == "Job"):
        template = copy.deepcopy(job["spec"]["template"])
        del template["spec"]["serviceAccountName"]
        metadata = {**template["metadata"], "name": job["metadata"]["name"]}
        made.append({**template, "apiVersion": "v1", "kind": "Pod", "metadata": metadata})
    return made


def _worker(job: Manifest) -> Any:
    return job["spec"]["template"]["spec"]["containers"][0]


def _integer_variable(job: Manifest) -> None:
    _worker(job)["env"].append({"name": "N", "value": 1})


def _misspelt(job: Manifest) -> None:
    job["spec"]["paralelism"] = 2


def _bad_quantity(job: Manifest) -> None:
    _worker(job)["resources"]["limits"]["memory"] = "6GB"


def _no_limit(job: Manifest) -> None:
    _worker(job)["resources"]["requests"]["nvidia.com/gpu"] = "1"


def _on_failure(job: Manifest) -> None:
    job["spec"]["template"]["spec"]["restartPolicy"] = "OnFailure"


def _always(job: Manifest) -> None:
    job["spec"]["template"]["spec"]["restartPolicy"] = "Always"


def _not_indexed(job: Manifest) -> None:
    job["spec"]["completionMode"] = "NonIndexed"


def _no_match(job: Manifest) -> None:
    job["spec"] |= {"manualSelector": True, "selector": {"matchLabels": {"no": "such"}}}


def _no_volume(job: Manifest) -> None:
    _worker(job)["volumeMounts"].append({"name": "none", "mountPath": "/none"})


def _no_container(job: Manifest) -> None:
    job["spec"]["podFailurePolicy"]["rules"][1]["onExitCodes"]["containerName"] = "wroker"


def _half_a_gpu(job: Manifest) -> None:
    _worker(job)["resources"]["limits"]["nvidia.com/gpu"] = "0.5"


MISTAKES = {
    _integer_variable: "env",
    _misspelt: 'unknown field "spec.paralelism"',
    _bad_quantity: "quantities must match",
    _no_limit: "Limit must be set for non overcommitable resources",
    _on_failure: 'only "Never" is supported when',
    _always: 'Required value: valid values: "OnFailure", "Never"',
    _not_indexed: "backoffLimitPerIndex",
    _no_match: "`selector` does not match template `labels`",
    _no_volume: 'Not found: "none"',
    _no_container: "wroker",
    _half_a_gpu: "must be an integer",
}


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__.strip("_"))
def test_a_planted_mistake_is_refused(
    strict: Namespace, mistake: Callable[[Manifest], None]
) -> None:
    job = one(kustomized(FILES / "base"), "Job", "worker")
    assert "server dry run" in dry_run(strict, [job])
    mistake(job)
    said = dry_run(strict, [job], check=False)
    assert "server dry run" not in said and MISTAKES[mistake] in said, said


def test_a_pod_that_may_do_more_is_refused(strict: Namespace) -> None:
    (_, pod) = pods_of(kustomized(FILES / "base"))
    pod["spec"]["containers"][0]["securityContext"]["capabilities"] = {"add": ["SYS_ADMIN"]}
    said = dry_run(strict, [pod], check=False)
    assert 'violates PodSecurity "restricted' in said, said


def test_it_is_the_version_that_go_mod_names(plane: ControlPlane) -> None:
    assert '"gitVersion": "v1.36.3"' in plane.kubectl("get", "--raw", "/version")
